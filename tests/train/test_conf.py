"""Configurations: from code, YAML and flags alike, checked everywhere."""

from __future__ import annotations

import dataclasses
import os
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_bregman.train import (
    Conf,
    DataConf,
    ModelConf,
    OptimConf,
    RegularizerConf,
    ScheduleConf,
    StartConf,
    TargetConf,
)
from torch_bregman.train.command_line import parse_conf
from torch_bregman.train.setup import set_up
from torch_bregman.train.yaml_file import to_text

CONFIGS = sorted(Path(__file__).parents[2].joinpath("configs").glob("*.yaml"))
DATA = os.environ.get("TORCH_BREGMAN_DATA")

text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=12)
odd = st.sampled_from(
    ["1", "1e3", "null", "yes", "~", "0x1f", "- a", "a: b", "#", "é λ", "{a: 1}", "[1]", "2026-01-01", "'"]
)
names = (text | odd).filter(lambda name: name.strip() and name not in (".", ".."))
plain = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-10, 10) | st.text(string.ascii_letters, min_size=1)
options = st.dictionaries(st.text(string.ascii_lowercase, min_size=1, max_size=8), plain | st.lists(plain, max_size=3))
positive = st.floats(1e-8, 1e8)
regularizers = st.builds(RegularizerConf, name=names, lam=positive | st.just(0), options=options)
starts = st.one_of(
    st.builds(StartConf, kind=st.just("sparse"), density=st.floats(1e-6, 1), view=names),
    st.builds(StartConf, kind=st.just("low_rank"), rank=st.integers(1, 99)),
    st.just(StartConf(kind="dense")),
)
optims = st.one_of(
    st.builds(
        OptimConf, name=st.sampled_from(["linbreg", "proxsgd", "sgd"]), lr=positive | st.none(), momentum=positive
    ),
    st.builds(OptimConf, name=st.just("adabreg"), betas=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)), eps=positive),
    st.builds(OptimConf, name=st.just("bregman"), base=names, options=options),
)
confs = st.builds(
    Conf,
    name=names,
    seed=st.integers(0, 2**63 - 1),
    epochs=st.integers(1, 10**6),
    out=names,
    device=names,
    dtype=st.sampled_from(["float32", "float64", "bfloat16", "float16"]),
    threads=st.none() | st.integers(1, 64),
    track=st.lists(st.sampled_from(["tensorboard", "mlflow", "trackio"]), unique=True),
    data=st.builds(DataConf, dir=st.none() | names, batch_size=st.integers(0, 10**6), validation=st.floats(0, 0.9)),
    model=st.builds(ModelConf, hidden=st.none() | st.lists(st.integers(1, 999)), options=options),
    start=starts,
    regularizer=regularizers,
    rules=st.dictionaries(names, regularizers, max_size=3),
    optim=optims,
    schedule=st.builds(ScheduleConf, name=names, options=options, every=st.sampled_from(["epoch", "step"])),
)


@given(conf=confs)
@settings(max_examples=60)
def test_a_configuration_survives_a_dict_and_yaml(conf: Conf) -> None:
    assert Conf.from_dict(conf.to_dict()) == conf
    assert Conf.from_dict(yaml.safe_load(yaml.safe_dump(conf.to_dict()))) == conf


@given(conf=confs)
@settings(max_examples=40)
def test_a_configuration_survives_a_file(conf: Conf, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("conf") / "config.yaml"
    path.write_text(to_text(conf.to_dict()), encoding="utf-8")
    assert Conf.from_yaml(str(path)) == conf
    assert parse_conf(["--config", str(path)]) == conf


def test_flags_go_before_the_file_and_the_file_before_defaults(tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text("epochs: 7\nseed: 4\noptim: {name: adabreg, lr: 1e-2}\nrules: {fc1: {lam: 1e-3}}\n")
    conf = parse_conf(["--config", str(path), "--epochs", "9", "--optim.delta", "2", "--model.hidden", "[5]"])
    assert (conf.epochs, conf.seed, conf.data) == (9, 4, DataConf())
    assert conf.optim == OptimConf(name="adabreg", lr=0.01, delta=2.0)
    assert conf.rules == {"fc1": RegularizerConf(lam=0.001)}
    assert conf.model.hidden == [5]


def test_flags_go_before_the_file_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text("optim: {name: linbreg, lr: .5e-2, momentum: 5.E-1}\n")
    flags = ["--optim.lr", "1e-3", "--name", "1e3"]
    for arguments in (["--config", str(path), *flags], [*flags, "--config", str(path)]):
        conf = parse_conf(arguments)
        assert (conf.optim, conf.name) == (OptimConf(lr=1e-3, momentum=0.5), "1e3")


def test_no_arguments_are_the_defaults() -> None:
    assert parse_conf([]) == Conf()


@pytest.mark.parametrize("name", ["linbreg", "adabreg", "proxsgd", "sgd", "adam"])
def test_what_depends_on_other_fields_is_filled_in_by_flags_as_in_code(name: Any) -> None:
    assert parse_conf(["--optim.name", name]).optim == OptimConf(name=name)
    assert parse_conf(["--model.name", "convnet"]).model == ModelConf(name="convnet")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_that_ship(path: Path) -> None:
    conf = Conf.from_yaml(str(path))
    assert conf.name == path.stem
    assert parse_conf(["--config", str(path), "--epochs", "2"]) == dataclasses.replace(conf, epochs=2)
    if conf.data.name == "sample":
        parts = set_up(conf)
        assert len(parts.train.labels) == 5400


@pytest.mark.skipif(not DATA, reason="TORCH_BREGMAN_DATA names no folder with the full sets")
@pytest.mark.parametrize("path", [path for path in CONFIGS if "mnist" in path.stem or "fashion" in path.stem])
def test_the_configurations_of_full_sets(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_BREGMAN_DATA", DATA or "")
    assert len(set_up(Conf.from_yaml(str(path))).train.labels) == 54_000


def test_there_are_configurations_to_load() -> None:
    assert len(CONFIGS) >= 6


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "int as text": (Conf, {"epochs": "3"}, "epochs must be a whole number, got '3'"),
    "int as float": (Conf, {"epochs": 3.0}, "epochs must be a whole number, got 3.0"),
    "int as bool": (Conf, {"epochs": True}, "epochs must be a whole number, got True"),
    "text as number": (Conf, {"name": 3}, "name must be text, got 3"),
    "part as dict": (Conf, {"optim": {"lr": 1}}, "optim must be a mapping"),
    "rule that is none": (Conf, {"rules": {"fc1": 3}}, "rules must be a mapping such as {key: {field: value}}"),
    "rule by a type": (Conf, {"rules": {int: RegularizerConf()}}, "rules must be a mapping"),
    "choice": (Conf, {"dtype": "float8"}, "dtype must be one of float32, float64, bfloat16, float16, got 'float8'"),
    "bool as int": (DataConf, {"flip": 1}, "flip must be true or false, got 1"),
    "float as text": (OptimConf, {"lr": "1e-3"}, "lr must be a finite number or null, got '1e-3'"),
    "float not finite": (OptimConf, {"delta": float("nan")}, "delta must be a finite number, got nan"),
    "pair of one": (OptimConf, {"betas": (0.9,)}, r"betas must be 2 values, a list of finite numbers, got \(0.9,\)"),
    "list of text": (ModelConf, {"hidden": ["8"]}, r"hidden must be a list of whole numbers or null, got \['8'\]"),
    "options by number": (ModelConf, {"options": {1: 2}}, "options must be a mapping"),
    "range": (StartConf, {"density": 0.0}, r"start.density must lie in \(0, 1\], got 0.0"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_configurations_in_code_are_checked(wrong: str) -> None:
    kind, fields, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        kind(**fields)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epocs": 3}, "unknown field epocs: use one of channels_last, data"),
        ({"optim": {"rate": 3}}, "unknown field optim.rate: use one of accelerated"),
        ({"optim": {"lr": "x"}}, "^optim.lr must be a finite number or null, got 'x'"),
        ({"optim": [1]}, r"optim must be a mapping such as {field: value}, got \[1\]"),
        ({"rules": {"fc1": {"lam": "x"}}}, "^rules.fc1.lam must be a finite number, got 'x'"),
        ({"rules": 3}, "rules must be a mapping"),
    ],
)
def test_dicts_that_are_none_are_refused_by_the_full_name_of_the_field(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conf.from_dict(values)


def test_whole_numbers_will_do_for_any_number() -> None:
    assert OptimConf(lr=1, delta=2).arguments()["lr"] == 1
    assert OptimConf(name="adabreg", betas=[0, 0.5]).betas == (0.0, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "norm", "lr"), [("mlp", "l1", 0.1), ("convnet", "l1", 0.02), ("convnet", "nuclear", 0.005)]
)
def test_linbreg_is_slower_with_convolutions(model: str, norm: str, lr: float) -> None:
    goal = {"params": 2000} if norm == "nuclear" else {"density": 0.05}
    plain = {"model": {"name": model}, "optim": {"name": "linbreg"}, "regularizer": {"name": norm}, "target": goal}
    conf = Conf.from_dict(plain)
    assert (conf.optim.lr, conf.target.consolidate_lr) == (lr, None if model == "mlp" else pytest.approx(lr / 10))
    assert Conf.from_dict({**plain, "optim": {"name": "linbreg", "lr": 0.3}}).optim.lr == 0.3


@pytest.mark.parametrize(
    ("model", "regularizer", "early"),
    [
        ("lenet_300_100", ("nuclear", 0.1, {}), (0.5, 0.3, None)),
        ("lenet5_caffe", ("nuclear", 2e-4, {"weighted": True}), (0.4, 0.5, 0.006)),
    ],
)
def test_in_low_rank_convolutions_have_a_weighted_norm_and_factors_are_trained_early_and_fast(
    model: str, regularizer: tuple[str, float, dict[str, Any]], early: tuple[float, float, float | None]
) -> None:
    plain = {"model": {"name": model}, "regularizer": {"name": "nuclear"}, "target": {"params": 9000}}
    conf = Conf.from_dict(plain)
    target = conf.target
    assert conf.optim.lr == 0.003
    assert (target.ramp_over, target.consolidate, target.consolidate_lr) == early
    assert target.warm_up == (None if model == "lenet_300_100" else 0.05)
    assert target.scope == ("global" if model == "lenet_300_100" else "layer")
    assert conf.regularizer == RegularizerConf(regularizer[0], regularizer[1], regularizer[2])
    own = Conf.from_dict({**plain, "optim": {"lr": 0.01}, "target": {"params": 9000, "consolidate": 0.2}})
    assert (own.target.consolidate, own.target.consolidate_lr) == (0.2, None if model == "lenet_300_100" else 0.02)
    assert Conf.from_dict(conf.to_dict()) == conf


@pytest.mark.parametrize(
    ("model", "density", "moved"),
    [
        ("lenet_300_100", 0.01, (0.01, 0.0)),
        ("lenet_300_100", 0.05, (0.005, 0.1)),
        ("lenet5_caffe", 0.01, (0.02, 0.0)),
        ("lenet5_caffe", 0.05, (0.02, 0.1)),
    ],
)
def test_adabreg_is_faster_with_convolutions_and_has_a_weight_decay_in_large_networks(
    model: str, density: float, moved: tuple[float, float]
) -> None:
    plain = {"model": {"name": model}, "target": {"density": density}}
    optim = Conf.from_dict(plain).optim
    assert (optim.name, optim.lr, optim.weight_decay) == ("adabreg", *moved)
    own = Conf.from_dict({**plain, "optim": {"lr": 0.03}}).optim
    assert (own.lr, own.weight_decay) == (0.03, 0.0)


@pytest.mark.parametrize(
    ("changes", "warm_up"),
    [
        ({}, 0.05),
        ({"regularizer": {"name": "group_l2", "options": {"view": "kernels"}}}, 0.05),
        ({"target": {"density": 0.02, "warm_up": 0.0}}, 0.0),
        ({"model": {"name": "lenet_300_100"}}, None),
        ({"optim": {"name": "linbreg"}}, None),
        ({"target": {"units": 0.2}}, None),
        ({"target": {"units": 0.2}, "start": {"kind": "units", "density": 0.3}}, None),
    ],
)
def test_with_convolutions_the_rate_of_adabreg_rises_but_by_whole_units(
    changes: dict[str, Any], warm_up: float | None
) -> None:
    plain = {"model": {"name": "lenet5_caffe"}, "target": {"density": 0.02}}
    assert Conf.from_dict({**plain, **changes}).target.warm_up == warm_up


@pytest.mark.parametrize("goal", [{"units": 0.2}, {"macs": 0.3}])
@pytest.mark.parametrize(("model", "lr"), [("lenet_300_100", 0.01), ("lenet5_caffe", 0.005)])
def test_by_whole_units_a_dense_start_has_a_small_lambda_and_an_early_freeze(
    model: str, lr: float, goal: dict[str, float]
) -> None:
    plain = {"model": {"name": model}, "regularizer": {"name": "outgoing"}, "target": goal}
    conf = Conf.from_dict(plain)
    assert (conf.start.kind, conf.regularizer.lam, conf.optim.lr) == ("dense", 0.01, lr)
    assert (conf.target.ramp_over, conf.target.consolidate, conf.target.consolidate_lr) == (0.4, 0.5, None)
    assert Conf.from_dict(conf.to_dict()) == conf
    own = Conf.from_dict({**plain, "regularizer": {"name": "outgoing", "lam": 0.3}, "optim": {"lr": 0.1}})
    assert (own.regularizer.lam, own.optim.lr) == (0.3, 0.1)
    linbreg = Conf.from_dict({**plain, "optim": {"name": "linbreg"}})
    assert linbreg.optim.lr == (0.1 if lr == 0.01 else 0.02)
    assert conf.target.scope == ("layer" if "units" in goal or model == "lenet5_caffe" else "global")


@pytest.mark.parametrize(
    ("rules", "scope"),
    [({"fc1": {"name": "none", "lam": 0}}, "layer"), ({"fc1": {"name": "l1"}}, "global")],
)
def test_multiply_adds_are_met_in_each_layer_where_there_are_only_units(rules: dict[str, Any], scope: str) -> None:
    plain = {"model": {"name": "convnet"}, "regularizer": {"name": "outgoing"}, "target": {"macs": 0.3}, "rules": rules}
    assert Conf.from_dict(plain).target.scope == scope
    assert Conf.from_dict({**plain, "target": {"macs": 0.3, "scope": "global"}}).target.scope == "global"
    assert Conf.from_dict({**plain, "regularizer": {"name": "l1"}}).target.scope == "global"


@pytest.mark.parametrize(
    "beside", [{"start": {"kind": "units", "density": 0.3}}, {"optim": {"name": "linbreg", "multilevel": {"m": 10}}}]
)
def test_by_whole_units_what_starts_small_or_goes_in_cycles_keeps_its_lambda(beside: dict[str, Any]) -> None:
    conf = Conf.from_dict({"target": {"units": 0.3}, **beside})
    assert (conf.regularizer.lam, conf.target.ramp_over, conf.target.consolidate) == (0.1, 0.5, 0.3)


@pytest.mark.parametrize("own", [{"lam": 0.5}, {"options": {"weighted": False}}])
def test_a_norm_that_is_known_is_left_as_it_is(own: dict[str, Any]) -> None:
    plain = {"model": {"name": "convnet"}, "target": {"params": 9000}}
    conf = Conf.from_dict({**plain, "regularizer": {"name": "nuclear", **own}})
    assert conf.regularizer == RegularizerConf("nuclear", own.get("lam", 0.1), own.get("options", {}))


MODELS = st.sampled_from(["lenet_300_100", "convnet", "lenet5_caffe"])
GOALS = st.sampled_from(
    [
        {"density": 0.02},
        {"density": 0.1},
        {"units": 0.2},
        {"units": 40.0},
        {"params": 9000.0},
        {"rank": 12.0},
        {"macs": 0.3},
    ]
)
PARTS: dict[str, Any] = {
    "optim": OptimConf(name="adabreg", lr=0.3),
    "regularizer": RegularizerConf(name="nuclear", lam=0.7),
    "start": StartConf(kind="dense"),
}
OUTGOING = RegularizerConf(name="outgoing", lam=0.02)


@given(MODELS, GOALS, st.sets(st.sampled_from(sorted(PARTS)), max_size=2))
@settings(max_examples=40)
def test_in_code_the_recipe_chooses_the_parts_left_out(model: str, goal: dict[str, float], given_: set[str]) -> None:
    """As from plain values, where the parts that are set are set whole."""
    own = {name: PARTS[name] for name in given_}
    found = Conf(model=ModelConf(name=model), target=TargetConf(**goal), **own)
    plain = {name: dataclasses.asdict(part) for name, part in own.items()}
    expected = Conf.from_dict({"model": {"name": model}, "target": goal, **plain})
    assert found == expected
    assert Conf.from_dict(found.to_dict()) == found
    assert all(getattr(found, name) == part for name, part in own.items())


def test_in_code_multiply_adds_of_whole_units_are_met_in_each_layer() -> None:
    conv = ModelConf(name="convnet")
    conf = Conf(model=conv, target=TargetConf(macs=0.3), regularizer=OUTGOING)
    assert (conf.target.scope, conf.start.kind, conf.target.consolidate) == ("layer", "dense", 0.5)
    assert Conf(model=conv, target=TargetConf(macs=0.3, scope="global"), regularizer=OUTGOING).target.scope == "global"
    assert Conf(model=conv, target=TargetConf(macs=0.3)).target.scope == "global"
    assert Conf(target=TargetConf(macs=0.3), regularizer=OUTGOING).target.scope == "global"


def test_the_recipe_also_comes_with_a_target_that_is_set_later() -> None:
    conf = dataclasses.replace(Conf(name="mine"), target=TargetConf(density=0.02))
    assert (conf.name, conf.optim.name, conf.optim.lr, conf.start.density) == ("mine", "adabreg", 0.01, 0.2)
    by_hand = dataclasses.replace(Conf(optim=OptimConf()), target=TargetConf(density=0.02))
    assert by_hand.optim == OptimConf()


def test_scopes_of_configurations_made_before_are_read() -> None:
    assert Conf.from_dict({"target": {"scope": "global"}}) == Conf()
    assert Conf.from_dict({"target": {"units": 0.2}}).target.scope == "layer"
    assert Conf.from_dict({"target": {"units": 0.2, "scope": "global"}}).target.scope == "global"
    assert Conf.from_dict({"target": {"units": 200}}).target.scope == "global"
