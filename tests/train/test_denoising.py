"""Networks that give back clean images: data, loss and PSNR, log, resume, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.commands import results

from torch_bregman.data import Noise, load
from torch_bregman.report import draw_curves
from torch_bregman.train import Conf, fit, resume
from torch_bregman.train.setup import set_up
from torch_bregman.train.task import Denoising

SMALL = {"name": "denoiser", "options": {"layers": 3, "width": 30}}
ADAM = {"name": "adam", "lr": 0.003}


@pytest.fixture
def denoising(tiny: Callable[..., Conf]) -> Callable[..., Conf]:
    def make(**changes: Any) -> Conf:
        plain = {
            "start": {"kind": "dense", "density": 0.01},
            "regularizer": {"name": "none", "lam": 0.0},
            "optim": ADAM,
        }
        conf = tiny(data={"noise": 0.2}, **{**plain, **changes}).to_dict()
        return Conf.from_dict({**conf, "model": SMALL})

    return make


def test_psnr_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    clean, noisy = rng.random((5, 1, 7, 7)), rng.random((5, 1, 7, 7))
    expected = sum(10 * math.log10(1 / np.mean((a - b) ** 2)) for a, b in zip(clean, noisy, strict=True))
    judged = Denoising().judged(torch.from_numpy(noisy), torch.from_numpy(clean))
    assert float(judged) == pytest.approx(expected)
    assert math.isfinite(Denoising().judged(torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)))


def test_noise_has_its_size_and_comes_from_the_generator_alone() -> None:
    clean = torch.full((50, 1, 28, 28), 0.5)
    draws = [Noise(0.3)(clean, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert float((draws[0] - clean).std()) == pytest.approx(0.3, rel=0.02)
    assert float((draws[0] - clean).mean()) == pytest.approx(0, abs=0.01)


def test_targets_are_clean_images_and_evaluation_always_sees_the_same_noise(denoising: Callable[..., Conf]) -> None:
    parts, again = set_up(denoising()), set_up(denoising())
    clean = load("sample").test.images[::16].float() / 255
    assert torch.equal(parts.test.labels, clean)
    assert float((parts.test.images - clean).std()) == pytest.approx(0.2, rel=0.02)
    assert torch.equal(parts.test.images, again.test.images)
    x, y = next(iter(parts.train.epoch(torch.Generator().manual_seed(0))))
    assert float((x - y).std()) == pytest.approx(0.2, rel=0.05)
    assert (float(y.min()), float(y.max())) == (0.0, 1.0)


def test_it_learns_and_says_so_in_decibels(denoising: Callable[..., Conf]) -> None:
    result = fit(denoising(epochs=12), observers=[])
    noisy = 10 * math.log10(1 / 0.2**2)
    assert "test_accuracy" not in result.summary
    assert result.rows[-1]["val_psnr"] > result.rows[0]["val_psnr"]
    assert result.summary["test_psnr"] > 0.8 * noisy  # a few hundred images, seconds
    assert result.summary["best_val_psnr"] == max(row["val_psnr"] for row in result.rows)
    with torch.no_grad():
        parts = set_up(denoising())
        outputs = result.model(parts.test.images)
        assert float((outputs - parts.test.labels).square().mean()) == pytest.approx(result.summary["test_loss"], 1e-5)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(denoising: Callable[..., Conf]) -> None:
    whole = fit(denoising(name="whole"), observers=[])

    class Stop:
        def started(self, *_: object) -> None: ...
        def epoch(self, row: dict[str, Any]) -> None:
            if row["epoch"] == 1:
                raise KeyboardInterrupt

        def finished(self, result: object) -> None: ...
        def close(self) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        fit(denoising(name="stopped"), observers=[Stop()])
    stopped = resume("stopped", out=str(whole.path.parent), observers=[])
    assert results(stopped.path) == results(whole.path)


def test_terminal_and_picture_speak_of_psnr(denoising: Callable[..., Conf], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot is not installed")
    result = fit(denoising())
    out = capsys.readouterr().out
    assert "val PSNR" in out
    assert "test PSNR" in out
    assert "accuracy" not in out
    assert draw_curves(result.rows, result.path / "curves.png", "denoiser").is_file()


def test_what_does_not_go_together_is_refused(denoising: Callable[..., Conf], tiny: Callable[..., Conf]) -> None:
    with pytest.raises(ValueError, match="shifted or mirrored images do not go together"):
        tiny(data={"noise": 0.1, "shift": 2})
    with pytest.raises(ValueError, match=r"data\.noise must be a number >= 0, got -1"):
        tiny(data={"noise": -1.0})
    with pytest.raises(ValueError, match=r"maps 2 images to \(2, 10\), must be \(2, 1, 28, 28\), clean images"):
        set_up(tiny(data={"noise": 0.1}))
    classifying = denoising().to_dict()
    classifying["data"]["noise"] = 0.0
    with pytest.raises(ValueError, match=r"to \(2, 1, 28, 28\), must be \(2, 10\), a number for each class"):
        set_up(Conf.from_dict(classifying))
