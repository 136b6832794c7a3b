"""Train networks that start almost empty, grow only what the data asks for, and come out small."""

__version__ = "0.1.0"
