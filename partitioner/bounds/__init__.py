"""What no policy can beat, or could beat only by knowing the future; for the simulator only."""
