"""One run, a whole path: checkpoints are kept where the size passes a grid, and one is picked by rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.commands import bregman, checkpoint, is_one_error

from torch_bregman.train import Conf, RunFolder, fit, load_checkpoint, resume
from torch_bregman.train.path import Kept, kept_along, passes, pick


@given(
    kept=st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.5, 1)), min_size=1, max_size=8),
    within=st.floats(0, 0.2),
)
def test_the_pick_is_the_smallest_that_is_good_enough(kept: list[tuple[float, float]], within: float) -> None:
    along = [Kept(i, size, value, Path("x.pt")) for i, (size, value) in enumerate(kept)]
    picked, best = pick(along, within), max(value for _, value in kept)
    assert picked.value >= best - within
    assert not any(size < picked.size and value >= best - within for size, value in kept)


@given(before=st.floats(0, 1), now=st.floats(0, 1), mark=st.floats(0.01, 1))
def test_a_mark_is_passed_when_it_lies_between(before: float, now: float, mark: float) -> None:
    assert passes([mark], before, now) == (before < mark <= now or now <= mark < before)
    assert not passes([], before, now)


def growing(tiny: Callable[..., Conf], **changes: Any) -> Conf:
    return tiny(epochs=5, start={"density": 0.01}, regularizer={"lam": 0.02}, keep_at=[0.05, 0.1, 0.15], **changes)


def test_checkpoints_are_those_of_the_epochs_that_passed(tiny: Callable[..., Conf]) -> None:
    result = fit(growing(tiny), observers=[])
    kept = kept_along(result.folder)
    sizes = [0.01, *(row["density"] for row in result.rows)]
    crossing = [i for i in range(1, 6) if passes([0.05, 0.1, 0.15], sizes[i - 1], sizes[i])]
    assert sorted(each.epoch for each in kept) == crossing
    for each in kept:
        model = load_checkpoint(each.file)["model"]
        weights = [value for value in model.values() if value.ndim > 1]
        left = sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)
        assert left == each.size
        assert each.value == result.rows[each.epoch - 1]["val_accuracy"]


def test_a_run_that_was_stopped_keeps_the_same(tiny: Callable[..., Conf], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(growing(tiny, name="whole"), observers=[])

    class StopError(Exception):
        pass

    class Stop:
        def started(self, *_: object) -> None: ...
        def epoch(self, row: dict[str, Any]) -> None:
            if row["epoch"] == 1:
                raise StopError

        def finished(self, *_: object) -> None: ...
        def close(self) -> None: ...

    conf = growing(tiny, name="stopped")
    with pytest.raises(StopError):
        fit(conf, observers=[Stop()])
    stopped = resume(str(Path(conf.out) / "stopped"), observers=[])
    files = [sorted(run.path.glob("path/*.pt")) for run in (whole, stopped)]
    assert [path.name for path in files[0]] == [path.name for path in files[1]] != []
    assert all(checkpoint(a) == checkpoint(b) for a, b in zip(*files, strict=True))


def test_ranks_make_a_path_too(tiny: Callable[..., Conf]) -> None:
    conf = tiny(
        epochs=5,
        regularizer={"name": "nuclear", "lam": 0.02},
        start={"kind": "low_rank", "rank": 1, "density": 0.01},
        keep_at=[4.0, 6.0, 10.0],
    )
    kept = kept_along(fit(conf, observers=[]).folder)
    assert all(each.size >= 4 for each in kept)


def test_the_command_prints_the_path_and_picks(tmp_path: Path, few: Path) -> None:
    options = ["--epochs", "4", "--model.hidden", "[16]", "--data.dir", str(few), "--regularizer.lam", "0.02"]
    done = bregman("train", "--name", "grown", *options, "--keep_at", "[0.02, 0.05, 0.1]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = bregman("path", "grown", "--within", "1", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    kept = kept_along(RunFolder(tmp_path / "runs" / "grown"))
    assert shown.stdout.count(" *") == 1
    assert f"smallest within 1 points of the best: epoch {pick(kept, 0.01).epoch}, " in shown.stdout
    assert (tmp_path / "runs" / "grown" / "path.png").stat().st_size > 1000
    for arguments, message in (
        (["nowhere"], "there is no run 'nowhere'"),
        (["grown", "--within=-1"], "within must be a number >= 0"),
    ):
        wrong = bregman("path", *arguments, cwd=tmp_path)
        assert wrong.returncode == 2
        assert is_one_error(wrong.stderr)
        assert message in wrong.stderr


def test_a_run_that_kept_nothing_says_how_to(tiny: Callable[..., Conf]) -> None:
    result = fit(tiny(epochs=1), observers=[])
    with pytest.raises(ValueError, match="kept no checkpoints on its way: train with sizes to keep"):
        kept_along(result.folder)
    assert isinstance(result.model, torch.nn.Module)


def test_sizes_to_keep_are_above_zero(tiny: Callable[..., Conf]) -> None:
    with pytest.raises(ValueError, match=r"keep_at must be sizes > 0, got 0.0"):
        tiny(keep_at=[0.1, 0.0])
