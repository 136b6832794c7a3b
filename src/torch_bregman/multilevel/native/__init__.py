"""Products on a fixed support by a C program."""
