"""The journeys put together: convert, inspect, verify, benchmark."""
