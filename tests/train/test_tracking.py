"""What each tracker is told, and what is said where the package is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.commands import environment

from torch_bregman.train import Conf, fit, resume
from torch_bregman.train.history import flatten
from torch_bregman.train.yaml_file import to_text


def test_where_it_is_missing_that_is_said_before_anything_is_made(
    tiny: Callable[..., Conf], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    conf = tiny(track=["tensorboard"])
    with pytest.raises(ValueError, match=r"tensorboard is not installed: pip install 'torch-bregman\[track\]'"):
        fit(conf, observers=[])
    assert not Path(conf.out).exists()


@pytest.mark.filterwarnings("ignore")
def test_it_gets_every_number_of_the_log(tiny: Callable[..., Conf]) -> None:
    pytest.importorskip("tensorboard", reason="the extra track is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    class Stop:
        """An observer that stops the run after its first epoch, before TensorBoard is told of it."""

        def started(self, *_: object) -> None: ...

        def epoch(self, row: object) -> None:
            raise KeyboardInterrupt

        def finished(self, *_: object) -> None: ...

        def close(self) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        fit(tiny(track=["tensorboard"]), observers=[Stop()])
    result = resume("tiny", observers=[])
    events = EventAccumulator(str(result.path / "tensorboard"))
    events.Reload()
    rows = [flatten(row) for row in result.rows]
    assert set(events.Tags()["scalars"]) == rows[0].keys() - {"epoch", "remarks"}
    for key in events.Tags()["scalars"]:
        scalars = events.Scalars(key)
        assert [scalar.step for scalar in scalars] == [1, 2, 3]
        assert [scalar.value for scalar in scalars] == pytest.approx([row[key] for row in rows], rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*noload.*")  # mlflow's own use of SQLAlchemy
def test_mlflow_gets_it_too(tiny: Callable[..., Conf], monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra track is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = fit(tiny(track=["mlflow"]), observers=[])
    client = mlflow.MlflowClient(f"sqlite:///{(result.path.parent / 'mlflow.db').resolve()}")
    (run,) = client.search_runs([client.get_experiment_by_name("torch-bregman").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.name"] == "mlp"
    history = client.get_metric_history(run.info.run_id, "density")
    assert [each.value for each in history] == pytest.approx([row["density"] for row in result.rows])
    assert run.data.metrics["final/test_accuracy"] == pytest.approx(result.summary["test_accuracy"])


_TRACKIO = """
import json, sys, trackio
from torch_bregman.train import Conf, fit, resume

class Stop:
    def started(self, *_, **__): ...
    def epoch(self, row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt
    def finished(self, *_): ...
    def close(self): ...

def logged(name):
    return [(row["step"], row["value"]) for row in SQLiteStorage.get_metric_values("torch-bregman", name, "density")]

from trackio.sqlite_storage import SQLiteStorage
first, second = Conf.from_yaml("first.yaml"), Conf.from_yaml("second.yaml")
try:
    fit(first, observers=[Stop()])
except KeyboardInterrupt:
    pass
fit(second, observers=[])
resume("tiny", out=first.out, observers=[])
runs = {run.name: run.config["model.name"] for run in trackio.Api().runs("torch-bregman")}
print(json.dumps({"runs": runs, "tiny": logged("tiny"), "tiny-2": logged("tiny-2")}), file=sys.stderr)
"""


def test_trackio_gets_it_too_and_knows_runs_of_one_name_apart(tiny: Callable[..., Conf], tmp_path: Path) -> None:
    if find_spec("trackio") is None:
        pytest.skip("the extra track is not installed")
    for name, changes in (("first", {}), ("second", {"out": str(tmp_path / "others"), "epochs": 2})):
        (tmp_path / f"{name}.yaml").write_text(to_text(tiny(track=["trackio"], **changes).to_dict()))
    done = subprocess.run(
        [sys.executable, "-c", _TRACKIO],
        env=environment(TRACKIO_DIR=str(tmp_path / "trackio"), PYTHONWARNINGS="ignore"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stderr.splitlines()[-1])
    assert told["runs"] == {"tiny": "mlp", "tiny-2": "mlp"}
    for name, out in (("tiny", "runs"), ("tiny-2", "others")):
        rows = [json.loads(line) for line in (tmp_path / out / "tiny" / "log.jsonl").read_text().splitlines()]
        assert told[name] == [[row["epoch"], row["density"]] for row in rows]
