"""Tables as lines of plain text."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> list[str]:
    r"""Return a table as lines of equal columns, two blanks between them, a rule under the header.

    Args:
        header: one title a column.
        rows: cells, as many in a row as there are titles.
        align: "<" or ">" for each column in turn; columns beyond its end are left-aligned.

    Returns:
        The header, the rule, then one line a row; no trailing blanks.

    Raises:
        ValueError: for a row with more or fewer cells than the header.

    Example:
        >>> print("\n".join(text_table(["layer", "weights"], [["conv", "25"], ["linear", "1024"]], "<>")))
        layer   weights
        ------  -------
        conv         25
        linear     1024
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of this table needs {len(header)} cells, got {len(row)}: {list(row)}")
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    signs = align.ljust(len(header), "<")

    def render(cells: Sequence[str]) -> str:
        return "  ".join(f"{c:{s}{w}}" for c, s, w in zip(cells, signs, widths, strict=False)).rstrip()

    return [render(header), render(["-" * width for width in widths]), *(render(row) for row in rows)]
