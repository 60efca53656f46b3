"""Full-integer TFLite graphs as self-contained C99 projects: read, plan the arena, write the calls."""
