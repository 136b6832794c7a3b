"""Schedules that other libraries' callbacks advance, and their state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import torch_bregman as tb
from torch_bregman.integrations.advancing import Advancing, sizes
from torch_bregman.schedulers import Density, LamByQuantile, LamSchedule, linear

pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),  # Lightning's own use of torch
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


def small() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(40, 6), torch.arange(40) % 3


def calendar(optimizer: Any) -> list[Any]:
    return [LamSchedule(optimizer, linear(1.0, 0.0, steps=4))]


def control(optimizer: Any) -> list[Any]:
    return [LamByQuantile(optimizer, Density(0.5), relaxation=0.5, every=1)]


def test_what_is_said_of_a_low_rank_network() -> None:
    model, x, y = small()
    tb.low_rank_(model, 2, seed=0)
    optimizer = tb.LinBreg(tb.param_groups(model, {nn.Linear: tb.Nuclear(0.1)}), lr=0.01)
    cross_entropy(model(x), y).backward()
    optimizer.step()
    said = sizes(model, optimizer)
    assert said["rank"] == sum(len(optimizer.factors(model[n].weight)[0]) for n in (0, 2))  # pyright: ignore[reportIndexIssue]
    assert sizes(model, torch.optim.SGD(model.parameters())) == {"density": said["density"]}


def test_schedules_of_a_foreign_optimizer_are_refused() -> None:
    with pytest.raises(ValueError, match="schedules need an optimizer of torch_bregman, got SGD"):
        Advancing(every_epoch=calendar).begin(torch.optim.SGD(small()[0].parameters()))


def module_of(model: nn.Module) -> Any:
    pl = pytest.importorskip("lightning.pytorch", reason="the extra integrations is not installed")

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return tb.LinBreg(tb.param_groups(self.net, {nn.Linear: tb.L1(0.2)}), lr=0.05)

    return Module()


def lightning_run(folder: Path, epochs: int, make: dict[str, Any], path: str | None = None, **options: Any) -> Any:
    pl = pytest.importorskip("lightning.pytorch")
    from torch_bregman.integrations.lightning import BregmanCallback

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=[BregmanCallback(**make)], default_root_dir=folder, **quiet, **options
    )
    model, x, y = small()
    trainer.fit(module_of(model), DataLoader(TensorDataset(x, y), batch_size=10), ckpt_path=path, weights_only=True)
    return trainer


def test_lightning_advances_schedules_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    make = {"every_epoch": calendar}
    whole = lightning_run(tmp_path / "a", 4, make)
    assert whole.optimizers[0].param_groups[0]["lam"] == 0.0
    half = lightning_run(tmp_path / "b", 2, make)
    assert half.optimizers[0].param_groups[0]["lam"] == pytest.approx(0.1)
    half.save_checkpoint(tmp_path / "half.ckpt")
    rest = lightning_run(tmp_path / "b", 4, make, str(tmp_path / "half.ckpt"))
    assert rest.optimizers[0].param_groups[0]["lam"] == 0.0
    for ours, theirs in zip(rest.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_lightning_advances_controllers_once_an_optimizer_step(tmp_path: Path) -> None:
    trainer = lightning_run(tmp_path, 30, {"every_step": control}, accumulate_grad_batches=2)
    made = trainer.callbacks[0]._advancing._made["step"][0]
    assert made.steps == trainer.global_step == 60
    assert tb.density(trainer.model) == pytest.approx(0.5, abs=0.1)


def test_hugging_face_advances_controllers_and_calendars(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra integrations is not installed")
    from torch_bregman.integrations.hugging_face import BregmanCallback

    model, x, y = small()

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": cross_entropy(self.net(x), labels)}

    rows = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]
    optimizer = tb.LinBreg(tb.param_groups(model, {nn.Linear: tb.L1(0.2)}), lr=0.05)
    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=2, per_device_train_batch_size=10, use_cpu=True, report_to=[],
        save_strategy="no", logging_strategy="epoch", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    callback = BregmanCallback(every_epoch=calendar)
    trainer = transformers.Trainer(
        Wrapped(), arguments, train_dataset=rows, optimizers=(optimizer, None), callbacks=[callback]
    )
    trainer.train()
    assert optimizer.param_groups[0]["lam"] == pytest.approx(0.1)
    assert callback._advancing._made["epoch"][0].steps == 2
