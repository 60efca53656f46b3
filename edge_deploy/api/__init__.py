"""The journeys put together: convert, verify, inspect, benchmark."""
