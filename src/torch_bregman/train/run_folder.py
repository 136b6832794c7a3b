"""The folder of a run: configuration, versions, log, checkpoints. Nothing in it is ever overwritten by another run."""

from __future__ import annotations

import json
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch_bregman.train.atomic import replace_file
from torch_bregman.train.conf import Conf
from torch_bregman.train.yaml_file import to_text


class RunFolder:
    """Where a run keeps what it makes.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.jsonl = path / "log.jsonl"
        self.csv = path / "log.csv"
        self.last = path / "last.pt"
        self.best = path / "best.pt"
        self.summary = path / "summary.json"
        self.picture = path / "curves.png"

    @classmethod
    def create(cls, conf: Conf) -> RunFolder:
        """Make the folder `out/name`, or `out/name-2`, `-3`, … where that is taken.

        Raises:
            ValueError: where the folder cannot be written.
        """
        out = Path(conf.out)
        try:
            out.mkdir(parents=True, exist_ok=True)
            folder = cls(_fresh(out, conf.name))
            folder._write(folder.environment, json.dumps(_environment(), indent=2) + "\n")
            folder._write(folder.config, to_text(conf.to_dict()))
        except OSError as error:
            raise ValueError(f"cannot write to {out} ({error.strerror}): choose another folder with --out") from None
        return folder

    @classmethod
    def open(cls, run: str, out: str = "runs") -> tuple[RunFolder, Conf]:
        """Find a run by its folder, or by its name in `out`.

        Raises:
            ValueError: where there is no such run, or it never started.
        """
        for path in (Path(run), Path(out) / run):
            folder = cls(path)
            if folder.config.is_file():
                return folder, Conf.from_yaml(folder.config)
        raise ValueError(f"there is no run {run!r}: neither {Path(run)} nor {Path(out) / run} holds a config.yaml")

    def parts(self, epoch: int) -> Path:
        """Return the folder of the parts that processes hold of a sharded network after an epoch."""
        return self.path / f"parts-{epoch}"

    def drop_parts(self, keep: int | None) -> None:
        """Remove the parts of all epochs but one, once `last.pt` names that."""
        for path in self.path.glob("parts-*"):
            if keep is None or path != self.parts(keep):
                shutil.rmtree(path, ignore_errors=True)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary, which also says that the run is finished."""
        self._write(self.summary, json.dumps(summary, indent=2) + "\n")

    def read_summary(self) -> dict[str, Any] | None:
        """Return the summary of a finished run."""
        return json.loads(self.summary.read_text(encoding="utf-8")) if self.summary.is_file() else None

    def read_log(self) -> list[dict[str, Any]]:
        """Return the rows of the log."""
        return [json.loads(line) for line in self.jsonl.read_text(encoding="utf-8").splitlines()]

    @staticmethod
    def _write(path: Path, text: str) -> None:
        replace_file(path, lambda file: file.write(text.encode()))


def _fresh(out: Path, name: str) -> Path:
    number = 1
    while True:
        path = out / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def _environment() -> dict[str, Any]:
    packages = ("torch-bregman", "torch", "numpy")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        **{name: _version(name) for name in packages},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
