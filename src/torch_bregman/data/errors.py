"""The one error that everything about data raises."""

from __future__ import annotations


class DataError(ValueError):
    """A file, folder, archive or name of a data set is not what it must be.

    The message is one line: which file, what is wrong with it, what was expected.

    Example:
        >>> issubclass(DataError, ValueError)
        True
    """
