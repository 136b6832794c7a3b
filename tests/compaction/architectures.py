"""Eight small networks, one for each way in which units are made, joined and read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

import torch_bregman as tb


class Dense(nn.Module):
    """Concatenations, as in DenseNet: every layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(10), nn.BatchNorm2d(14)])
        self.convs = nn.ModuleList(
            [nn.Conv2d(6, 4, 3, padding=1, bias=False), nn.Conv2d(10, 4, 3, padding=1, bias=False)]
        )
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(14 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(relu(norm(x)))], 1)
        return self.head(self.pool(relu(self.norms[2](x))).flatten(1))


class Separable(nn.Module):
    """Depthwise and pointwise convolutions, a grouped one, and a squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.norm1 = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8)
        self.pointwise, self.norm2 = nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.squeeze, self.excite = nn.Linear(12, 5), nn.Linear(5, 12)
        self.grouped, self.head = nn.Conv2d(12, 8, 3, groups=4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.norm0(self.stem(x)))
        x = relu(self.norm1(self.depthwise(x)))
        x = nn.functional.hardswish(self.norm2(self.pointwise(x)))
        batch, channels = x.shape[:2]
        gate = torch.sigmoid(self.excite(relu(self.squeeze(x.mean((2, 3))))))
        x = x * gate.view(batch, channels, 1, 1)
        return self.head(nn.functional.adaptive_avg_pool2d(relu(self.grouped(x)), 1).flatten(1))


class Skips(nn.Module):
    """An autoencoder whose decoder reads what its encoder wrote: down, up, and across by sum and concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.bottom = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.merge, self.out = nn.Conv2d(12, 6, 3, padding=1), nn.Conv2d(6, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        high = relu(self.down1(x))
        low = relu(self.down2(high))
        low = low + torch.tanh(self.bottom(low))
        y = torch.cat([relu(self.up(low)), high], 1)
        return self.out(relu(self.merge(y)) + high)


class Encoder(nn.Module):
    """A small transformer: patches, two encoder layers, a mean over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.hidden, self.head = nn.Linear(16, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(relu(self.hidden(self.encoder(self.embed(x.flatten(1, 2))).mean(1))))


IMAGES = (6, 1, 8, 8)
ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: tb.models.mlp([64, 20, 16, 4], activation="elu"), IMAGES),
    "lenet5": (lambda: tb.models.lenet5_caffe(size=16, classes=4), (3, 1, 16, 16)),
    "convnet": (lambda: tb.models.convnet(size=16, classes=4), (3, 1, 16, 16)),
    "resnet": (lambda: tb.models.resnet(classes=4, width=6), IMAGES),
    "densenet": (Dense, IMAGES),
    "encoder": (Encoder, IMAGES),
    "separable": (Separable, IMAGES),
    "autoencoder": (Skips, IMAGES),
}


def build(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return a network in evaluation mode, its statistics and biases not what they start from, and an input."""
    make, shape = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make().eval()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    for tensor in (module.running_mean, module.bias):
                        tensor.normal_(0, 0.3)  # pyright: ignore[reportOptionalMemberAccess]
                    for tensor in (module.running_var, module.weight):
                        tensor.uniform_(0.5, 1.5)  # pyright: ignore[reportOptionalMemberAccess]
        return model, torch.randn(shape)


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return a loss: of a classifier, or of an autoencoder."""
    y = model(x)
    return (y - x).square().mean() if y.shape == x.shape else cross_entropy(y, torch.arange(len(x)) % 4)
