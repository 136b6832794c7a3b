"""Train a sparse network as a skorch classifier: python examples/skorch_net.py."""

from __future__ import annotations

from skorch import NeuralNetClassifier
from torch import nn

import torch_bregman as tb


def main(epochs: int = 3) -> tuple[NeuralNetClassifier, float]:
    """Train; return the classifier and its accuracy on the training images."""
    data = tb.data.load("sample")
    x, y = tb.data.normalize(data.train, data.mean, data.std)
    model = tb.models.mlp([784, 200, 80, 10])
    tb.sparsify_(model, density=0.01, seed=0)
    net = NeuralNetClassifier(
        model,
        criterion=nn.CrossEntropyLoss,
        max_epochs=epochs,
        batch_size=64,
        optimizer=tb.LinBreg,
        lr=0.1,
        optimizer__param_groups=[("*.weight", {"regularizer": tb.L1(0.1)})],
        train_split=None,
        verbose=0,
    )
    net.fit(x, y)
    return net, float((net.predict(x) == y.numpy()).mean())


if __name__ == "__main__":
    trained, accuracy = main()
    print(f"accuracy {accuracy:.1%} at density {tb.density(trained.module_):.2%}")
