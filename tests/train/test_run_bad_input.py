"""What users get wrong is told in one line, with exit status 2, and costs them nothing that was computed."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.commands import bregman, is_one_error, results

from torch_bregman.cli import main
from torch_bregman.data.idx import write_idx
from torch_bregman.train import CheckpointError, Conf, fit, load_checkpoint, save_checkpoint

ONCE = ["--epochs", "1", "--model.hidden", "[8]"]

ARGUMENTS: dict[str, tuple[list[str], str]] = {
    "unknown field": (["--epocs", "3"], "unknown field epocs: did you mean epochs?"),
    "unknown field of a part": (["--optim.momentun", "0.9"], "unknown field optim.momentun: did you mean"),
    "argument out of place": (["extra"], "unknown field extra"),
    "value missing": (["--epochs"], "--epochs: expected one argument"),
    "epochs no number": (["--epochs", "x"], "epochs must be a whole number, got x"),
    "epochs no whole number": (["--epochs", "1.5"], "epochs must be a whole number, got 1.5"),
    "epochs 0": (["--epochs", "0"], "epochs must be a number >= 1, got 0"),
    "seed negative": (["--seed=-1"], "seed must be a number >= 0"),
    "threads 0": (["--threads", "0"], "threads must be a number >= 1"),
    "lr no number": (["--optim.lr", "abc"], "optim.lr must be a finite number or null, got abc"),
    "lr infinite": (["--optim.lr", "inf"], "optim.lr must be a finite number or null, got inf"),
    "lr negative": (["--optim.lr=-1"], "optim.lr must be a number >= 0, got -1.0"),
    "nesterov no bool": (["--optim.nesterov", "maybe"], "optim.nesterov must be true or false, got maybe"),
    "betas one number": (["--optim.betas", "0.9"], "optim.betas must be 2 values"),
    "hidden no list": (["--model.hidden", "3"], "model.hidden must be a list of whole numbers or null, got 3"),
    "options no mapping": (["--model.options", "3"], "model.options must be a mapping such as {key: value}, got 3"),
    "lam negative": (["--regularizer.lam=-0.1"], "regularizer.lam must be a number >= 0, got -0.1"),
    "lam not a number": (["--regularizer.lam", "nan"], "regularizer.lam must be a finite number"),
    "density 0": (["--start.density", "0"], "start.density must lie in (0, 1], got 0.0"),
    "density above 1": (["--start.density", "1.5"], "start.density must lie in (0, 1], got 1.5"),
    "density keeps nothing": (["--start.density", "1e-9"], "density 1e-09 keeps none of"),
    "rank 0": (["--start.kind", "low_rank", "--start.rank", "0"], "start.rank must be a number >= 1"),
    "validation 1": (["--data.validation", "1"], "data.validation must be a number >= 0 and <= 0.9, got 1.0"),
    "batch size negative": (["--data.batch_size=-1"], "data.batch_size must be a number >= 0"),
    "nesterov alone": (["--optim.nesterov", "true"], "nesterov needs momentum > 0 and dampening = 0, got momentum 0.0"),
    "nesterov with dampening": (
        ["--optim.nesterov", "true", "--optim.momentum", "0.9", "--optim.dampening", "0.9"],
        "nesterov needs momentum > 0 and dampening = 0, got momentum 0.9 and dampening 0.9",
    ),
    "accelerated with momentum": (
        ["--optim.accelerated", "true", "--optim.momentum", "0.9"],
        "accelerated=True varies the momentum itself",
    ),
    "momentum 1": (["--optim.momentum", "1"], "momentum must lie in [0, 1), got 1.0"),
    "adabreg with momentum": (
        ["--optim.name", "adabreg", "--optim.momentum", "0.9"],
        "optim.momentum has no effect with adabreg, got 0.9: leave it out",
    ),
    "sgd with delta": (["--optim.name", "sgd", "--optim.delta", "2"], "optim.delta has no effect with sgd, got 2.0"),
    "dense start with density": (
        ["--start.kind", "dense", "--start.density", "0.1"],
        "start.density has no effect with dense, got 0.1",
    ),
    "hidden of a convnet": (["--model.name", "convnet", "--model.hidden", "[8]"], "model.hidden is for mlp only"),
    "pgd with minibatches": (["--optim.name", "pgd"], "pgd needs the full batch, got data.batch_size 32: set it to 0"),
    "pgd in float16": (
        ["--optim.name", "pgd", "--data.batch_size", "0", "--dtype", "float16"],
        "pgd needs gradients as they are, got dtype float16",
    ),
    "name with a slash": (["--name", "a/b"], "name must be a plain folder name, got 'a/b'"),
    "name empty": (["--name", ""], "name must be a plain folder name, got ''"),
    "name is a parent": (["--name", ".."], "name must be a plain folder name, got '..'"),
    "optimizer unknown": (["--optim.name", "linbregg"], "optim.name must be one of linbreg, adabreg, proxsgd"),
    "regulariser unknown": (["--regularizer.name", "l3"], "regularizer 'l3' is unknown: use one of none, l1"),
    "model unknown": (["--model.name", "vgg", "--model.hidden", "null"], "model 'vgg' is unknown: use one of mlp"),
    "schedule unknown": (["--schedule.name", "Cosine"], "schedule.name must name a class in torch.optim.lr_scheduler"),
    "schedule no class of schedules": (["--schedule.name", "math"], "schedule.name must name a class"),
    "data unknown": (["--data.name", "imagenet"], "data.name must be one of sample, mnist, fashion-mnist, cifar10"),
    "base missing": (["--optim.name", "bregman"], "optim.base must name a class of torch.optim for bregman, got None"),
    "base unknown": (
        ["--optim.name", "bregman", "--optim.base", "RMSPropp"],
        "optim.base must name a class in torch.optim, got 'RMSPropp'",
    ),
    "base that needs a closure": (["--optim.name", "bregman", "--optim.base", "LBFGS"], "LBFGS"),
    "options of the base": (
        ["--optim.name", "bregman", "--optim.base", "RMSprop", "--optim.options", "{rho: 1}"],
        "optim.base RMSprop cannot take the options",
    ),
    "options of the regulariser": (["--regularizer.options", "{view: rows}"], "regularizer 'l1' has no option 'view'"),
    "options that are fields": (["--regularizer.options", "{lam: 1}"], "regularizer.options must not set lam"),
    "option of a wrong type": (
        ["--regularizer.name", "elastic_net", "--regularizer.options", "{l1_ratio: half}"],
        "regularizer.name elastic_net cannot take the options",
    ),
    "options of the model": (["--model.options", "{depth: 3}"], "model 'mlp' takes sizes, activation, dropout: it has"),
    "model option of a wrong type": (["--model.options", "{dropout: half}"], "model 'mlp' cannot take the options"),
    "model of another size": (["--model.options", "{sizes: [100, 10]}"], "does not take images of shape (1, 28, 28)"),
    "model of other classes": (["--model.options", "{sizes: [784, 5]}"], "maps 2 images to (2, 5), must be (2, 10)"),
    "options of the schedule": (
        ["--schedule.name", "StepLR", "--schedule.options", "{step: 3}"],
        "schedule StepLR cannot take the options {'step': 3}",
    ),
    "schedule that breaks when it steps": (
        ["--schedule.name", "CosineAnnealingLR", "--schedule.options", "{T_max: 0}"],
        "schedule CosineAnnealingLR cannot take the options {'T_max': 0}",
    ),
    "options without a schedule": (["--schedule.options", "{gamma: 0.1}"], "schedule.options has no effect"),
    "plateau by step": (
        ["--schedule.name", "ReduceLROnPlateau", "--schedule.every", "step"],
        "schedule.every must be epoch with ReduceLROnPlateau",
    ),
    "schedule of lam unknown": (["--lam_schedule.name", "step"], "lam_schedule.name must be one of plateau, linear"),
    "options without a schedule of lam": (["--lam_schedule.options", "{end: 1}"], "lam_schedule.options has no effect"),
    "schedule of lam below 0": (
        ["--lam_schedule.name", "linear", "--lam_schedule.options", "{start: 1, end: -1}"],
        "lam_schedule.options must give numbers >= 0, got -1.0 for epoch 1",
    ),
    "schedule of lam in words": (
        ["--lam_schedule.name", "cosine", "--lam_schedule.options", "{start: high, end: 0}"],
        "lam_schedule cannot take the options {'start': 'high', 'end': 0}",
    ),
    "list of lam in words": (
        ["--lam_schedule.name", "listed", "--lam_schedule.options", "{values: {0: null}}"],
        "lam_schedule cannot take the options {'values': {0: None}}",
    ),
    "list of lam without epochs": (
        ["--lam_schedule.name", "listed", "--lam_schedule.options", "{values: {first: 1}}"],
        "lam_schedule.options of listed must be values by epoch",
    ),
    "schedule of a cap that is not there": (["--rank_schedule.name", "plateau"], "no group has a rank cap"),
    "schedule of lam for sgd": (["--optim.name", "sgd", "--lam_schedule.name", "plateau"], "got SGD: leave it out"),
    "engine unknown": (
        ["--regularizer.name", "nuclear", "--regularizer.options", "{engine: steam}"],
        "engine 'steam' is unknown",
    ),
    "soft_bernoulli as a penalty": (
        ["--optim.name", "sgd", "--regularizer.name", "soft_bernoulli"],
        "soft_bernoulli is no penalty that sgd could add to the loss",
    ),
    "view unknown": (["--start.view", "pixels"], "view 'pixels' is unknown: use one of elements, rows"),
    "kernels of an mlp": (
        ["--regularizer.name", "group_l2", "--regularizer.options", "{view: kernels}"],
        "parameter 'fc1.weight': view 'kernels' needs a convolution's weight",
    ),
    "rule for nothing": (["--rules", "{'features.*': {name: l1}}"], "the rule for 'features.*' applies to nothing"),
    "rule that is none": (["--rules", "{fc1: 3}"], "rules must be a mapping"),
    "rules that are a list": (["--rules", "[1]"], "rules must be a mapping"),
    "rule with an unknown field": (["--rules", "{fc1: {nam: l1}}"], "unknown field rules.fc1.nam: use one of lam, nam"),
    "rule with a wrong value": (["--rules", "{fc1: {lam: -1}}"], "rules.fc1.lam must be a number >= 0, got -1"),
    "rule with an unknown regulariser": (["--rules", "{fc1: {name: l3}}"], "regularizer 'l3' is unknown"),
    "device unknown": (["--device", "abacus"], "device 'abacus' cannot be used"),
    "device without numbers": (["--device", "meta"], "device 'meta' cannot be used"),
    "data folder missing": (["--data.dir", "nowhere"], "nowhere: no such folder"),
    "target 0": (["--target.density", "0"], "target.density must be a number > 0, got 0"),
    "target no share": (["--target.density", "1.5"], "target.density must be a share up to 1 or a whole number"),
    "target no number": (["--target.params", "many"], "target.params must be a finite number or null, got many"),
    "target misspelt": (["--target.densty", "0.1"], "unknown field target.densty: did you mean target.density?"),
    "controller without a goal": (["--target.controller", "feedback"], "no effect with no goal (one of density, units"),
    "controller unknown": (
        ["--target.density", "0.1", "--target.controller", "pid"],
        "target.controller must be one of quantile, feedback, none, got pid",
    ),
    "ramp and freeze too long": (
        ["--target.density", "0.1", "--target.consolidate", "0.8"],
        "target.ramp_over 0.5 and target.consolidate 0.8 are more than all steps",
    ),
    "relaxation 0": (["--target.density", "0.1", "--target.relaxation", "0"], "target.relaxation must lie in (0, 1]"),
    "every 0": (["--target.density", "0.1", "--target.every", "0"], "target.every must be a number >= 1, got 0"),
    "start of the ramp 0": (["--target.density", "0.1", "--target.start", "0"], "target.start must lie in (0, 1]"),
    "warm-up of all": (["--target.density", "0.1", "--target.warm_up", "1"], "target.warm_up must lie in [0, 1)"),
    "target for sgd": (
        ["--target.density", "0.1", "--optim.name", "sgd"],
        "target needs a Bregman or proximal optimizer, got sgd: use adabreg or linbreg",
    ),
    "target for proxsgd": (
        ["--target.density", "0.1", "--optim.name", "proxsgd"],
        "target.controller must be none for proxsgd, got quantile",
    ),
    "target beside a schedule of lam": (
        ["--target.density", "0.1", "--lam_schedule.name", "plateau"],
        "lam_schedule does not go with a target, whose controller moves λ",
    ),
    "target of density in low rank": (
        ["--target.density", "0.1", "--regularizer.name", "nuclear"],
        "nuclear makes no single weights sleep: set a target of rank or params",
    ),
    "target without a regularizer": (
        ["--target.density", "0.1", "--regularizer.name", "none"],
        "a target needs a group with a regularizer",
    ),
    "target below what stays dense": (
        ["--target.density", "0.05", "--rules", "{fc1: {name: none}}"],
        "a target of density 0.05 cannot be met: weights without a regularizer alone have",
    ),
    "config missing": (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read: No such file"),
}


def says(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, check how it fails, and return what it says."""
    capsys.readouterr()
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert is_one_error(err)
    return err


@pytest.mark.parametrize("wrong", ARGUMENTS)
def test_wrong_arguments(wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = ARGUMENTS[wrong]
    assert message in says(["train", *ONCE, *arguments], capsys)
    assert not (tmp_path / "runs").exists()


REAL = ("unknown field", "lam negative", "nesterov alone", "kernels of an mlp")


@pytest.mark.parametrize("wrong", REAL)
def test_wrong_arguments_of_a_real_process(wrong: str, tmp_path: Path) -> None:
    arguments, message = ARGUMENTS[wrong]
    done = bregman("train", *ONCE, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert is_one_error(done.stderr)
    assert message in done.stderr


FILES: dict[str, tuple[bytes, str]] = {
    "no YAML": (b"epochs: [1", "conf.yaml is no YAML: while parsing"),
    "a list": (b"[1, 2]", "conf.yaml must hold fields such as 'epochs: 3', got [1, 2]"),
    "a number": (b"42", "conf.yaml must hold fields such as 'epochs: 3', got 42"),
    "a word": (b"epochs", "conf.yaml must hold fields such as 'epochs: 3', got 'epochs'"),
    "nothing": (b"", "conf.yaml must hold fields such as 'epochs: 3', got None"),
    "random bytes": (bytes(range(128, 256)), "conf.yaml is no YAML: 'utf-8' codec"),
    "code": (b"!!python/object/apply:os.mkdir [it-ran]", "conf.yaml is no YAML: could not determine a constructor"),
    "an unknown field": (b"epocs: 3", "conf.yaml: unknown field epocs: use one of channels_last, data, device"),
    "an unknown field of a part": (b"optim: {momentun: 0.9}", "conf.yaml: unknown field optim.momentun: use one of"),
    "a wrong type": (b"epochs: many", "conf.yaml: epochs must be a whole number, got 'many'"),
    "a part that is none": (b"optim: 3", "conf.yaml: optim must be a mapping such as {field: value}, got 3"),
}


@pytest.mark.parametrize("wrong", FILES)
def test_configurations_that_are_none(wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = FILES[wrong]
    path = tmp_path / "conf.yaml"
    path.write_bytes(content)
    assert message in says(["train", "--config", str(path)], capsys)
    with pytest.raises(ValueError, match=re.escape(message)):
        Conf.from_yaml(path)
    assert not (tmp_path / "runs").exists()
    assert not Path("it-ran").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "device 'cuda' cannot be used" in says(["train", *ONCE, "--device", "cuda"], capsys)


def test_an_output_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], few: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    arguments = ["train", *ONCE, "--data.dir", str(few), "--out"]
    for out in ("file", "file/runs"):
        assert f"cannot write to {out}" in says([*arguments, out], capsys)
    assert (tmp_path / "file").read_text() == "not a folder"


def damage(few: Path, folder: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    for path in few.iterdir():
        content = path.read_bytes()
        (folder / path.name).write_bytes(change(content) if path.name.startswith(name) else content)
    return folder


def test_data_that_is_damaged(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", *ONCE, "--data.dir"]
    assert "train-images-idx3-ubyte: missing" in says([*arguments, str(tmp_path)], capsys)
    cut = damage(few, tmp_path, "train-images", lambda content: content[:-1])
    assert "train-images-idx3-ubyte: truncated" in says([*arguments, str(cut)], capsys)
    other = damage(few, tmp_path, "t10k-labels", lambda content: b"\xff" * len(content))
    assert "t10k-labels-idx1-ubyte: not an idx file" in says([*arguments, str(other)], capsys)
    assert not (tmp_path / "runs").exists()


def test_data_in_the_cache_that_is_not_the_published(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cache = tmp_path / "cache" / "mnist"
    cache.mkdir(parents=True)
    damage(few, cache, "none", bytes)
    err = says(["train", *ONCE, "--data.name", "mnist"], capsys)
    assert "has SHA-256" in err
    assert "expected ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db" in err


def test_images_that_a_model_does_not_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (40, 20, 30), dtype=np.uint8))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", rng.integers(0, 10, 40, dtype=np.uint8))
    arguments = ["train", "--epochs", "1", "--data.dir", str(tmp_path), "--model.name"]
    assert "model 'convnet' does not take images of shape (1, 20, 30)" in says([*arguments, "convnet"], capsys)
    assert main([*arguments, "mlp"]) == 0


@pytest.fixture
def stopped(tiny: Callable[..., Conf]) -> Path:
    """A run with all its files but the summary, as if it had been stopped at the end."""
    run = fit(tiny(), observers=[]).folder
    run.summary.unlink()
    return run.path


class Code:
    """A pickle that writes a file when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("it-ran",)


def other_shape(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    save_checkpoint(path, {**content, "model": {"fc1.weight": torch.zeros(3, 2)}})


CHECKPOINTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut in half": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "is damaged or no"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged or no checkpoint"),
    "random bytes": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "is damaged or no"),
    "text": (lambda path: path.write_text("a checkpoint"), "is damaged or no checkpoint"),
    "a pickle with code": (lambda path: path.write_bytes(pickle.dumps({"format": 1, "model": Code()})), "damaged or"),
    "a checkpoint with code": (lambda path: torch.save({"format": 1, "model": Code()}, path), "damaged or"),
    "a model's weights": (lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path), "is no checkpoint of"),
    "a tensor": (lambda path: torch.save(torch.zeros(3), path), "is no checkpoint of torch-bregman"),
    "a format that is no number": (lambda path: torch.save({"format": "x"}, path), "is no checkpoint of torch-bregman"),
    "of a later format": (lambda path: torch.save({"format": 99}, path), "has format 99, newer than"),
    "of nothing": (lambda path: save_checkpoint(path, {}), "belongs to another model or optimizer"),
    "of another shape": (other_shape, "does not fit the run's configuration"),
}


@pytest.mark.parametrize("wrong", CHECKPOINTS)
def test_resume_from_a_checkpoint_that_is_none(wrong: str, stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, message = CHECKPOINTS[wrong]
    spoil(stopped / "last.pt")
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    err = says(["resume", str(stopped)], capsys)
    assert message in err
    assert "last.pt" in err
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before
    assert not Path("it-ran").exists()
    if wrong not in ("of nothing", "of another shape"):
        with pytest.raises(CheckpointError):
            load_checkpoint(stopped / "last.pt")


OTHERS: dict[str, dict[str, Any]] = {
    "model": {"model": {"hidden": [9]}},
    "optimizer": {"optim": {"name": "adabreg"}},
    "regulariser": {"regularizer": {"name": "elastic_net"}},
    "rules": {"rules": {"fc1": {"name": "l1"}}},
}


@pytest.mark.parametrize("other", OTHERS)
def test_resume_from_a_checkpoint_of_another_run(
    other: str, stopped: Path, tiny: Callable[..., Conf], capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = fit(tiny(name="other", **OTHERS[other]), observers=[]).folder
    (stopped / "last.pt").write_bytes(foreign.last.read_bytes())
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    assert "belongs to another model or optimizer" in says(["resume", str(stopped)], capsys)
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before


def test_resume_of_what_is_no_run(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no run 'nothing': neither nothing nor runs/nothing holds a config.yaml" in says(
        ["resume", "nothing"], capsys
    )
    for content, message in (
        (b"[1]", "must hold fields such as"),
        (b"a: [", "is no YAML"),
        (b"a: 1", "unknown field a"),
    ):
        (stopped / "config.yaml").write_bytes(content)
        assert message in says(["resume", str(stopped)], capsys)


def test_divergence_in_mid_run_keeps_the_last_good_checkpoint(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["train", "--data.dir", str(few), "--model.hidden", "[8]", "--epochs", "5"]
    err = says([*shared, "--schedule.name", "ExponentialLR", "--schedule.options", "{gamma: 1e20}"], capsys)
    assert "epoch 2 diverged (the loss is " in err
    assert "the checkpoint of epoch 1 is kept in runs/run/last.pt: lower optim.lr (now 1e+19)" in err
    kept = load_checkpoint(tmp_path / "runs" / "run" / "last.pt")
    assert kept["epoch"] == len(kept["rows"]) == 1
    assert all(bool(torch.isfinite(weight).all()) for weight in kept["model"].values())
    assert len((tmp_path / "runs" / "run" / "log.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "runs" / "run" / "summary.json").exists()


BLOWN: dict[str, list[str]] = {
    "in its first epoch": ["--optim.lr", "1e6", "--data.batch_size", "1"],
    "in an epoch's only step": ["--optim.lr", "1e30", "--data.batch_size", "0", "--optim.name", "sgd"],
    "with full batches": ["--optim.lr", "1e30", "--data.batch_size", "0", "--optim.name", "pgd"],
    "in a singular value decomposition": [
        *("--optim.lr", "1e30", "--regularizer.name", "nuclear", "--start.kind", "low_rank", "--start.rank", "2")
    ],
    "in float16": ["--optim.lr", "1e6", "--dtype", "float16"],
}


@pytest.mark.parametrize("how", BLOWN)
def test_divergence_at_once(how: str, few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = says(["train", "--data.dir", str(few), *ONCE, *BLOWN[how]], capsys)
    assert "epoch 1 diverged (" in err
    assert "no epoch was finished: lower optim.lr (now 1e+" in err
    assert not (tmp_path / "runs" / "run" / "last.pt").exists()


def test_a_full_disk_keeps_the_last_checkpoint(
    tiny: Callable[..., Conf], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs the device that is always full")
    changes: dict[str, Any] = {"regularizer": {"lam": 0.01}, "start": {"density": 0.3}}  # nothing to remark on
    conf = tiny(name="stopped", epochs=2, **changes)
    whole = fit(tiny(name="whole", epochs=2, **changes), observers=[])
    fit(tiny(name="stopped", epochs=1, **changes), observers=[])
    run = Path(conf.out) / conf.name
    (run / "config.yaml").write_text((whole.path / "config.yaml").read_text())
    (run / "summary.json").unlink()
    (run / "last.pt.partial").symlink_to("/dev/full")
    before = (run / "last.pt").read_bytes()
    assert "No space left on device" in says(["resume", str(run)], capsys)
    assert (run / "last.pt").read_bytes() == before
    (run / "last.pt.partial").unlink()
    assert main(["resume", str(run)]) == 0
    assert results(run) == results(whole.path)
