"""The folder of a run: nothing overwritten, all files there and in agreement, and enough to do it again."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tests.commands import checkpoint, results, start

from torch_bregman import __version__
from torch_bregman.train import Conf, RunFolder, fit
from torch_bregman.train.atomic import replace_file
from torch_bregman.train.history import flatten


def test_a_name_that_is_taken_gets_a_number_and_nothing_is_overwritten(tiny: Callable[..., Conf]) -> None:
    first = fit(tiny(epochs=1), observers=[])
    before = {path.name: path.read_bytes() for path in first.path.iterdir()}
    others = [fit(tiny(epochs=1, seed=seed), observers=[]) for seed in (1, 2)]
    assert [result.path.name for result in (first, *others)] == ["tiny", "tiny-2", "tiny-3"]
    assert {path.name: path.read_bytes() for path in first.path.iterdir()} == before


def test_a_file_of_that_name_stays(tiny: Callable[..., Conf]) -> None:
    conf = tiny()
    Path(conf.out).mkdir()
    (Path(conf.out) / "tiny").write_text("mine")
    assert RunFolder.create(conf).path.name == "tiny-2"
    assert (Path(conf.out) / "tiny").read_text() == "mine"


def test_many_at_once_get_a_folder_each(tiny: Callable[..., Conf]) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: RunFolder.create(tiny()).path.name, range(40)))
    assert sorted(folders) == sorted(["tiny", *(f"tiny-{number}" for number in range(2, 41))])


def test_two_processes_at_once_get_a_folder_each(few: Path, tmp_path: Path) -> None:
    arguments = ["train", "--epochs", "2", "--data.dir", str(few), "--model.hidden", "[8]", "--name", "twin"]
    twins = [start(*arguments, cwd=tmp_path) for _ in range(2)]
    assert [twin.communicate(timeout=120)[1] for twin in twins] == ["", ""]
    assert [twin.returncode for twin in twins] == [0, 0]
    one, other = (results(tmp_path / "runs" / name) for name in ("twin", "twin-2"))
    assert one == other


def test_the_same_configuration_gives_the_same_bits_and_another_seed_does_not(tiny: Callable[..., Conf]) -> None:
    changes = {"data": {"shift": 1}, "model": {"options": {"dropout": 0.5}}}
    one, other, third = (fit(tiny(seed=seed, **changes), observers=[]) for seed in (5, 5, 6))
    assert results(one.path) == results(other.path)
    assert checkpoint(one.folder.last)["model"] != checkpoint(third.folder.last)["model"]


def test_the_configuration_kept_makes_the_run_again(tiny: Callable[..., Conf]) -> None:
    conf = tiny(
        optim={"name": "adabreg"}, rules={"fc1": {"name": "l1", "lam": 0.01}}, schedule={"name": "CosineAnnealingLR"}
    )
    one = fit(conf, observers=[])
    kept = Conf.from_yaml(one.folder.config)
    assert kept == conf == one.conf
    assert results(fit(kept, observers=[]).path) == results(one.path)


def test_log_and_table_agree(tiny: Callable[..., Conf]) -> None:
    result = fit(tiny(optim={"name": "bregman", "base": "Adam"}), observers=[])
    with result.folder.csv.open(newline="") as file:
        table = list(csv.DictReader(file))
    log = [json.loads(line) for line in result.folder.jsonl.read_text().splitlines()]
    assert log == result.rows == result.folder.read_log()
    assert [row["epoch"] for row in log] == [1, 2, 3]
    assert [{key: str(value) for key, value in flatten(row).items()} for row in log] == table
    wanted = {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "density", "layer_density/fc1.weight"}
    assert {*wanted, "layer_density/fc2.weight", "J/0", "J/1", "lr/0", "lam/0", "seconds"} <= table[0].keys()


def test_what_has_no_penalty_is_null_in_the_log(tiny: Callable[..., Conf]) -> None:
    result = fit(tiny(regularizer={"name": "soft_bernoulli"}), observers=[])
    assert [row["J"]["0"] for row in result.rows] == [None] * 3
    assert "NaN" not in result.folder.jsonl.read_text()


def test_the_log_says_what_the_weights_say(tiny: Callable[..., Conf]) -> None:
    result = fit(tiny(regularizer={"lam": 0.07}), observers=[])
    weights = [param.detach() for param in result.model.parameters() if param.ndim == 2]
    last = result.rows[-1]
    left, total = sum(int((w != 0).sum()) for w in weights), sum(w.numel() for w in weights)
    assert last["density"] == pytest.approx(left / total)
    assert last["layer_density"] == {
        f"fc{number}.weight": pytest.approx(float((w != 0).float().mean())) for number, w in enumerate(weights, start=1)
    }
    assert last["J"] == {"0": pytest.approx(0.07 * float(sum(w.abs().sum() for w in weights)), rel=1e-5), "1": 0.0}
    assert last["lam"]["0"] == 0.07
    assert (result.summary["weights_left"], result.summary["weights"]) == (left, total)


def test_the_log_has_the_rate_that_the_epoch_was_trained_with(tiny: Callable[..., Conf]) -> None:
    conf = tiny(optim={"lr": 0.8}, schedule={"name": "ExponentialLR", "options": {"gamma": 0.5}})
    assert [row["lr"]["0"] for row in fit(conf, observers=[]).rows] == [0.8, 0.4, 0.2]


def test_schedules_span_the_run(tiny: Callable[..., Conf]) -> None:
    for every in ("epoch", "step"):
        conf = tiny(optim={"lr": 0.8}, schedule={"name": "CosineAnnealingLR", "every": every})
        last = torch.load(fit(conf, observers=[]).folder.last, weights_only=True)
        assert last["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-12)


def test_the_plateau_looks_at_the_loss_of_the_images_held_out(tiny: Callable[..., Conf]) -> None:
    options = {"patience": 0, "threshold": 1e9, "threshold_mode": "abs", "factor": 0.1}
    conf = tiny(schedule={"name": "ReduceLROnPlateau", "options": options})
    result = fit(conf, observers=[])
    assert [row["lr"]["0"] for row in result.rows] == pytest.approx([0.1, 0.1, 0.01])


def test_the_environment_is_recorded(tiny: Callable[..., Conf]) -> None:
    environment = json.loads(fit(tiny(epochs=1), observers=[]).folder.environment.read_text())
    assert environment["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"python", "platform", "machine", "numpy"} <= environment.keys()
    assert environment["torch-bregman"] in (__version__, "not installed")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file: object) -> None:
        path.with_name("file.partial").write_bytes(b"ne")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        replace_file(path, fail)
    assert path.read_bytes() == b"old"
    replace_file(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert not path.with_name("file.partial").exists()


def test_a_missing_summary_and_log_say_that_a_run_is_not_finished(tiny: Callable[..., Conf]) -> None:
    folder = RunFolder.create(tiny())
    assert folder.read_summary() is None
    assert RunFolder.open("tiny", tiny().out)[0].path == folder.path == RunFolder.open(str(folder.path))[0].path
