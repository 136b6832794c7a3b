"""What training does: it learns, from almost nothing, by the rule it was given."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from torch_bregman.metrics import rank
from torch_bregman.train import Conf, fit
from torch_bregman.train.reproducible import seed_epoch
from torch_bregman.train.setup import set_up

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_configuration_of_make_train_learns_from_one_percent(tmp_path: Path) -> None:
    conf = dataclasses.replace(Conf.from_yaml(CONFIGS / "mlp-sample.yaml"), epochs=3, out=str(tmp_path), threads=1)
    start = set_up(conf).model
    result = fit(conf, observers=[])
    densities = [row["density"] for row in result.rows]
    assert sum(int(p.count_nonzero()) for p in start.parameters() if p.ndim == 2) == 1736  # 1 % of 173,600
    assert 0.01 < densities[0] < densities[1] < densities[2] < 0.06
    assert result.summary["test_accuracy"] > 0.8
    assert result.rows[-1]["train_loss"] < 0.5 < result.rows[0]["train_loss"]
    assert all(0 < share < 0.6 for share in result.rows[-1]["layer_density"].values())
    assert result.rows[-1]["layer_density"]["fc3.weight"] > result.rows[-1]["layer_density"]["fc1.weight"]


def test_adabreg_learns(tmp_path: Path) -> None:
    conf = Conf.from_dict(
        {"epochs": 3, "out": str(tmp_path), "optim": {"name": "adabreg"}, "regularizer": {"lam": 0.03}, "threads": 1}
    )
    result = fit(conf, observers=[])
    assert result.summary["test_accuracy"] > 0.8
    assert 0.01 < result.summary["density"] < 0.7


def test_proxsgd_empties_a_dense_network(tmp_path: Path) -> None:
    conf = Conf.from_dict(
        {
            "epochs": 3,
            "out": str(tmp_path),
            "start": {"kind": "dense"},
            "optim": {"name": "proxsgd"},
            "regularizer": {"lam": 1e-3},
            "threads": 1,
        }
    )
    result = fit(conf, observers=[])
    densities = [row["density"] for row in result.rows]
    assert 1 > densities[0] > densities[1] > densities[2] > 0.01
    assert result.summary["test_accuracy"] > 0.8


def test_group_rules_train_a_convnet_by_kernels(tiny: Callable[..., Conf]) -> None:
    conf = tiny(
        epochs=1,
        model={"name": "convnet", "hidden": None},
        rules={"Conv2d": {"name": "group_l2", "lam": 0.05, "options": {"view": "kernels"}}, "LSTM": {"lam": 1.0}},
    )
    parts = set_up(conf)
    names = [group["param_names"] for group in parts.optimizer.param_groups]
    assert names[:2] == [
        ["features.conv1.weight", "features.conv2.weight"],
        ["classifier.fc1.weight", "classifier.fc2.weight"],
    ]
    result = fit(conf, observers=[])
    weight = dict(result.model.named_parameters())["features.conv2.weight"]
    kernels = weight.detach().flatten(2)
    asleep = (kernels == 0).all(2)
    assert 0 < int(asleep.sum()) < asleep.numel()
    assert bool((kernels != 0).all(2)[~asleep].float().mean() > 0.9)


def test_the_nuclear_norm_grows_rank_from_a_low_rank_start(tiny: Callable[..., Conf]) -> None:
    conf = tiny(
        model={"hidden": [40]},
        start={"kind": "low_rank", "rank": 2, "density": 0.01},
        regularizer={"name": "nuclear", "lam": 0.05},
        epochs=6,
    )
    start, result = set_up(conf).model, fit(conf, observers=[])
    before, after = (dict(model.named_parameters())["fc1.weight"] for model in (start, result.model))
    assert rank(before) == 2
    assert 2 < rank(after, tol=1e-5) < 40
    assert result.rows[-1]["train_loss"] < result.rows[0]["train_loss"]


def test_pgd_lowers_the_objective_every_step(tiny: Callable[..., Conf]) -> None:
    conf = tiny(
        epochs=8, optim={"name": "pgd", "accelerated": False}, data={"batch_size": 0}, regularizer={"lam": 1e-3}
    )
    rows = fit(conf, observers=[]).rows
    # the loss of an epoch is the one before its step, J the one after
    objectives = [later["train_loss"] + row["J"]["0"] for row, later in pairwise(rows)]
    assert all(after < before for before, after in pairwise(objectives))


def test_the_penalty_of_a_dense_baseline_is_added_to_the_loss(tiny: Callable[..., Conf]) -> None:
    lam = 0.003
    conf = tiny(optim={"name": "sgd", "momentum": 0.9}, regularizer={"name": "l1", "lam": lam}, start={"density": 1.0})
    parts = set_up(conf)
    optimizer = torch.optim.SGD(parts.model.parameters(), lr=0.1, momentum=0.9)
    for epoch in (1, 2, 3):
        for x, y in parts.train.epoch(seed_epoch(conf.seed, epoch)):
            loss = cross_entropy(parts.model(x), y)
            for weight in (w for w in parts.model.parameters() if w.ndim == 2):
                loss = loss + lam * weight.abs().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    result = fit(conf, observers=[])
    for ours, theirs in zip(result.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    without = fit(tiny(optim={"name": "sgd", "momentum": 0.9}, regularizer={"name": "none"}), observers=[])
    assert result.rows[-1]["J"]["0"] == pytest.approx(
        lam * sum(float(w.detach().abs().sum()) for w in result.model.parameters() if w.ndim == 2), rel=1e-4
    )
    assert without.rows[-1]["J"] == {"0": 0.0}


def test_an_epoch_is_one_pass_and_its_loss_the_mean_before_each_step(tiny: Callable[..., Conf]) -> None:
    conf = tiny(epochs=1, optim={"lr": 0.0}, data={"batch_size": 50})  # does not divide 180
    result, parts = fit(conf, observers=[]), set_up(conf)
    with torch.no_grad():
        logits = parts.model(parts.train.images)
    assert result.rows[0]["train_loss"] == pytest.approx(float(cross_entropy(logits, parts.train.labels)), rel=1e-5)
    hits = (logits.argmax(1) == parts.train.labels).float().mean()
    assert result.rows[0]["train_accuracy"] == pytest.approx(float(hits))


def test_a_rate_of_zero_moves_nothing(tiny: Callable[..., Conf]) -> None:
    for name in ("linbreg", "adabreg", "proxsgd", "sgd"):
        conf = tiny(optim={"name": name, "lr": 0.0})
        before, after = set_up(conf).model.state_dict(), fit(conf, observers=[]).model.state_dict()
        for key, weight in before.items():
            torch.testing.assert_close(after[key], weight, rtol=1e-6, atol=1e-7)


def test_the_process_is_afterwards_as_it_was(tiny: Callable[..., Conf]) -> None:
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002 - the global state is the point
    before = _globals()
    for changes in ({}, {"model": {"options": {"dropout": 0.5}}, "data": {"shift": 1}}):
        fit(tiny(threads=1, **changes), observers=[])
    with pytest.raises(ValueError, match="diverged"):
        fit(tiny(threads=1, optim={"lr": 1e30}), observers=[])
    assert _globals() == before


def _globals() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tobytes(),  # type: ignore[index,union-attr]  # noqa: NPY002
        "threads": torch.get_num_threads(),
        "deterministic": torch.backends.cudnn.deterministic,
        "benchmark": torch.backends.cudnn.benchmark,
        "grad": torch.is_grad_enabled(),
        "type": torch.get_default_dtype(),
    }


def test_threads_are_set_for_the_run_alone(tiny: Callable[..., Conf]) -> None:
    seen = []

    class Watch:
        def started(self, *_: object) -> None: ...

        def epoch(self, row: dict[str, Any]) -> None:
            seen.append(torch.get_num_threads())

        def finished(self, *_: object) -> None: ...

        def close(self) -> None: ...

    before = torch.get_num_threads()
    fit(tiny(epochs=1, threads=before + 1), observers=[Watch()])
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_the_same_run_whatever_the_callers_seed(tiny: Callable[..., Conf]) -> None:
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(fit(tiny(model={"options": {"dropout": 0.5}}), observers=[]).model)
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


def test_observers_are_told_all_and_closed_even_when_a_run_fails(tiny: Callable[..., Conf]) -> None:
    told: list[Any] = []

    class Watch:
        def started(self, folder: Any, conf: Any, parts: Any, epochs_done: int) -> None:
            told.append(("started", epochs_done))

        def epoch(self, row: dict[str, Any]) -> None:
            told.append(row["epoch"])

        def finished(self, result: Any) -> None:
            told.append(result.path.name)

        def close(self) -> None:
            told.append("closed")

    fit(tiny(), observers=[Watch()])
    assert told == [("started", 0), 1, 2, 3, "tiny", "closed"]
    told.clear()
    with pytest.raises(ValueError, match="diverged"):
        fit(tiny(optim={"lr": 1e30}), observers=[Watch()])
    assert told == [("started", 0), "closed"]


def test_a_configuration_changed_after_it_was_made_is_checked_and_changes_later_do_no_harm(
    tiny: Callable[..., Conf],
) -> None:
    conf = tiny(epochs=1)
    conf.epochs = 0
    with pytest.raises(ValueError, match="epochs must be a number >= 1, got 0"):
        fit(conf, observers=[])
    conf.epochs = 1
    result = fit(conf, observers=[])
    conf.optim.lr = 99.0
    assert result.conf.optim.lr == 0.1


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_types(dtype: str, tiny: Callable[..., Conf]) -> None:
    conf = tiny(dtype=dtype, epochs=8, start={"density": 0.3})
    result = fit(conf, observers=[])
    assert {param.dtype for param in result.model.parameters()} == {
        torch.float64 if dtype == "float64" else torch.float32
    }
    assert result.rows[-1]["train_loss"] < 0.8 * result.rows[0]["train_loss"]
    single = fit(tiny(epochs=8, start={"density": 0.3}), observers=[])
    assert result.rows[-1]["train_loss"] == pytest.approx(single.rows[-1]["train_loss"], rel=0.15)
    assert result.rows[-1]["train_loss"] != single.rows[-1]["train_loss"]
