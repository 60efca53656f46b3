"""Ways to go over to another cut, one a file; each offers `go(stage, cut)`."""
