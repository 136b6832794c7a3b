"""The native step: dual update and mirror map in one pass, by a small C program built on the spot."""
