"""The log of a run: one JSON line and one CSV row for every epoch."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from torch_bregman.train.atomic import replace_file

Row = dict[str, Any]
"""Plain values by column; nested dicts (density by layer, J, lr and λ by group) become columns name/key in CSV."""


def metric_of(row: Row) -> str:
    """Return what a row of the log, or a summary, judges by: accuracy, or psnr where images are denoised.

    Example:
        >>> metric_of({"test_psnr": 24.0})
        'psnr'
    """
    return "psnr" if {"test_psnr", "val_psnr"} & row.keys() else "accuracy"


def metric_text(row: Row, kind: str, *, wide: bool = False) -> str:
    """Return that number in words.

    Args:
        row: of the log, or a summary.
        kind: test, val, best_test, …
        wide: pad it, for lines below each other.

    Example:
        >>> metric_text({"test_accuracy": 0.971}, "test"), metric_text({"test_psnr": 24.0}, "test")
        ('accuracy 97.10%', 'PSNR 24.00 dB')
    """
    metric = metric_of(row)
    value = row[f"{kind}_{metric}"]
    if metric == "psnr":
        return f"PSNR {value:{5 if wide else 1}.2f} dB"
    return f"accuracy {value:{6 if wide else 1}.2%}"


class History:
    """All rows so far, in memory and in two files.

    Args:
        jsonl: file with one JSON object a line.
        csv_file: the same as a table.
    """

    def __init__(self, jsonl: Path, csv_file: Path) -> None:
        self._jsonl, self._csv = jsonl, csv_file
        self.rows: list[Row] = []

    def append(self, row: Row) -> None:
        """Add a row to memory and files."""
        self.rows.append(row)
        with self._jsonl.open("a", encoding="utf-8") as file:
            file.write(_json_line(row))
        with self._csv.open("a", encoding="utf-8", newline="") as file:
            file.write(_csv_text([row], header=len(self.rows) == 1))

    def restore(self, rows: list[Row]) -> None:
        """Set memory and files to these rows: a kill may have left the files ahead or behind, or a line cut short."""
        self.rows = list(rows)
        replace_file(self._jsonl, lambda file: file.write("".join(map(_json_line, rows)).encode()))
        replace_file(self._csv, lambda file: file.write(_csv_text(rows, header=bool(rows)).encode()))


def flatten(row: Row) -> dict[str, Any]:
    """Return the row with nested dicts as columns.

    Example:
        >>> flatten({"epoch": 1, "lr": {"0": 0.1}})
        {'epoch': 1, 'lr/0': 0.1}
    """
    flat: dict[str, Any] = {}
    for key, value in row.items():
        flat.update({f"{key}/{part}": v for part, v in value.items()} if isinstance(value, dict) else {key: value})
    return flat


def _json_line(row: Row) -> str:
    return json.dumps(row) + "\n"


def _csv_text(rows: list[Row], *, header: bool) -> str:
    text = io.StringIO()
    flat = [flatten(row) for row in rows]
    if flat:
        writer = csv.DictWriter(text, fieldnames=list(flat[0]), lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(flat)
    return text.getvalue()
