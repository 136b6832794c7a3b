"""Train a sparse network in the Hugging Face Trainer: python examples/hugging_face_trainer.py."""

from __future__ import annotations

import tempfile

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

import torch_bregman as tb
from torch_bregman.integrations.hugging_face import BregmanCallback


class Digits(Dataset):
    """The embedded sample, as the Trainer wants it."""

    def __init__(self) -> None:
        data = tb.data.load("sample")
        self.x, self.y = tb.data.normalize(data.train, data.mean, data.std)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self.x[index], "labels": self.y[index]}


class Classifier(nn.Module):
    """A perceptron that returns its loss, as the Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tb.models.mlp([784, 200, 80, 10])

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return loss and logits."""
        logits = self.net(x)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


def main(epochs: int = 3) -> Trainer:
    """Train, and return the trainer."""
    model = Classifier()
    tb.sparsify_(model, density=0.01, seed=0)
    optimizer = tb.LinBreg(tb.param_groups(model, {nn.Linear: tb.L1(0.1)}), lr=0.1)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=64,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="epoch",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(
            model, arguments, train_dataset=Digits(), optimizers=(optimizer, None), callbacks=[BregmanCallback()]
        )
        trainer.train()
    return trainer


if __name__ == "__main__":
    for row in main().state.log_history:
        print(row)
