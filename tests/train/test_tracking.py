"""TensorBoard events, and what is said where the package is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from torch_bregman.train import Conf, fit, resume
from torch_bregman.train.history import flatten


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
