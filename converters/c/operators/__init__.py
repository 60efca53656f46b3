"""One file for each family of operators: what a call of it looks like in C."""
