"""How a run shows itself."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from torch_bregman.train import Conf, Terminal, fit, resume


def shown(conf: Conf, **how: bool) -> str:
    """What a run prints on a console."""
    text = io.StringIO()
    fit(conf, observers=[Terminal(Console(file=text, width=120, highlight=False, **how))])
    return text.getvalue()


def test_plain_lines_where_there_is_no_terminal(tiny: Callable[..., Conf]) -> None:
    lines = shown(tiny()).splitlines()
    assert not any("\x1b" in line or "\r" in line for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["1/3", "2/3", "3/3"]
    assert lines[0].startswith("run    ")
    assert "test accuracy" in lines[-4]
    assert "best on the validation images" in lines[-3]


def test_a_bar_on_a_terminal_that_is_cleared_in_the_end(tiny: Callable[..., Conf]) -> None:
    text = shown(tiny(), force_terminal=True)
    assert "\x1b[" in text
    assert "epoch 1/3" in text
    assert "epoch 3/3  loss" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") >= 1, "the cursor must come back"


def test_the_cursor_comes_back_when_a_run_fails(tiny: Callable[..., Conf]) -> None:
    text = io.StringIO()
    terminal = Terminal(Console(file=text, width=120, force_terminal=True))
    with pytest.raises(ValueError, match="diverged"):
        fit(tiny(optim={"lr": 1e30}), observers=[terminal])
    assert text.getvalue().count("\x1b[?25l") == text.getvalue().count("\x1b[?25h") >= 1


def test_without_images_held_out_it_is_the_test_accuracy(tiny: Callable[..., Conf]) -> None:
    lines = shown(tiny(data={"validation": 0.0})).splitlines()
    assert "  test accuracy " in next(line for line in lines if line.startswith("epoch"))
    assert not any("validation" in line for line in lines)


def test_resume_says_where_it_goes_on(tiny: Callable[..., Conf]) -> None:
    result = fit(tiny(), observers=[])
    text = io.StringIO()
    resume(str(result.path), observers=[Terminal(Console(file=text, width=120))])
    assert "resume after epoch 3 of 3" in text.getvalue()
