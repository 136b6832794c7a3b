"""Train a sparse network in a Lightning Trainer: python examples/lightning_trainer.py."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import torch_bregman as tb
from torch_bregman.integrations.lightning import BregmanCallback


class Classifier(pl.LightningModule):
    """A perceptron for the digits of the embedded sample."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tb.models.mlp([784, 200, 80, 10])
        tb.sparsify_(self.net, density=0.01, seed=0)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        """Return the loss of a batch."""
        x, y = batch
        loss = cross_entropy(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return tb.LinBreg(tb.param_groups(self.net, {nn.Linear: tb.L1(0.1)}), lr=0.1)


def main(epochs: int = 3, **options: Any) -> pl.Trainer:
    """Train, and return the trainer."""
    pl.seed_everything(0)
    data = tb.data.load("sample")
    x, y = tb.data.normalize(data.train, data.mean, data.std)
    trainer = pl.Trainer(max_epochs=epochs, callbacks=[BregmanCallback()], accelerator="cpu", **options)
    trainer.fit(Classifier(), DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True))
    return trainer


if __name__ == "__main__":
    print(main().callback_metrics)
