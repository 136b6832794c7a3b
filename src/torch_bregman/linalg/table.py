"""The engines by name."""

from __future__ import annotations

import re
from typing import Any

from torch_bregman.linalg.auto import AutoEngine
from torch_bregman.linalg.engine import Engine
from torch_bregman.linalg.full import FullEngine
from torch_bregman.linalg.gram import GramEngine
from torch_bregman.linalg.matmul import MatmulEngine
from torch_bregman.linalg.randomized import RandomizedEngine
from torch_bregman.linalg.tracked import TrackedEngine

ENGINES: dict[str, type[Any]] = {
    kind.name: kind for kind in (AutoEngine, FullEngine, GramEngine, MatmulEngine, RandomizedEngine, TrackedEngine)
}


def new_engine(name: str) -> Engine:
    """Return a new engine, without memory.

    Args:
        name: auto, full, gram, matmul, randomized, tracked; "randomized(16, 8)" is capped at rank 16 with 8 more
            directions searched, "tracked(1e-4)" has that tolerance.

    Raises:
        ValueError: for another name, or wrong numbers in the brackets.

    Example:
        >>> str(new_engine("randomized(16)"))
        'randomized(16, 8, 2)'
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(([\d\s,.e+-]*)\))?\s*", str(name))
    if match is None or match[1] not in ENGINES:
        raise ValueError(f"engine {name!r} is unknown: use one of {', '.join(ENGINES)}, e.g. 'randomized(16)'")
    numbers = [number.strip() for number in (match[2] or "").split(",") if number.strip()]
    try:
        return ENGINES[match[1]](*(float(n) if "." in n or "e" in n else int(n) for n in numbers))
    except (TypeError, ValueError) as error:
        raise ValueError(f"engine {name!r} cannot be made: {error}") from None
