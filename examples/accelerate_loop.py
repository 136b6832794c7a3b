"""Train a sparse network in an Accelerate loop: python examples/accelerate_loop.py, or accelerate launch."""

from __future__ import annotations

from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import torch_bregman as tb


def main(epochs: int = 3) -> tuple[nn.Module, float]:
    """Train; return the model and the accuracy on the training images."""
    accelerator = Accelerator(cpu=True)
    data = tb.data.load("sample")
    x, y = tb.data.normalize(data.train, data.mean, data.std)
    loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
    model = tb.models.mlp([784, 200, 80, 10])
    tb.sparsify_(model, density=0.01, seed=0)
    optimizer = tb.LinBreg(tb.param_groups(model, {nn.Linear: tb.L1(0.1)}), lr=0.1)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            accelerator.backward(cross_entropy(model(inputs), targets))
            optimizer.step()
    model = accelerator.unwrap_model(model)
    return model, float((model(x).argmax(1) == y).float().mean())


if __name__ == "__main__":
    trained, accuracy = main()
    print(f"accuracy {accuracy:.1%} at density {tb.density(trained):.2%}")
