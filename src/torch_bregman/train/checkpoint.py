"""Checkpoints: written whole or not at all, and loaded without running any code of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from torch_bregman.train.atomic import replace_file

FORMAT = 1
"""Raised when what a checkpoint holds changes in a way that older code cannot read."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or belongs to something else."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically."""
    replace_file(path, lambda file: torch.save({"format": FORMAT, **content}, file))


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint with `weights_only=True`.

    Raises:
        CheckpointError: for a file that is missing, cut short, of another kind or of a later format.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except Exception as error:  # torch raises a dozen kinds for damaged files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"checkpoint {path} cannot be read, it is damaged or no checkpoint ({reason[:120]}): "
            "restore it from a copy, or train anew"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise CheckpointError(f"{path} is no checkpoint of torch-bregman")
    if content["format"] > FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {content['format']}, newer than {FORMAT}: update torch-bregman"
        )
    return content
