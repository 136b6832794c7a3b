"""Evaluation, the images held out, and the best checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torch_bregman.data import Batches, load, normalize
from torch_bregman.models import mlp
from torch_bregman.train import Conf, evaluate, fit
from torch_bregman.train.setup import set_up


@pytest.fixture
def batches() -> Batches:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(25, 1, 3, 4, generator=generator)
    return Batches(images, torch.randint(5, (25,), generator=generator), 10, shuffle=False)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return mlp([12, 8, 5], dropout=0.5)


def test_it_is_the_mean_over_all_images(batches: Batches) -> None:
    net = model()
    score = evaluate(net, batches)
    net.eval()
    losses, hits = [], 0
    for image, label in zip(batches.images.double(), batches.labels.tolist(), strict=True):
        logits = net.double()(image[None])[0].tolist()
        total = sum(torch.tensor(logits, dtype=torch.float64).exp().tolist())
        losses.append(-logits[label] + float(torch.tensor(total).log()))
        hits += logits.index(max(logits)) == label
    assert score.loss == pytest.approx(sum(losses) / 25, rel=1e-5)
    assert score.accuracy == hits / 25


def test_dropout_is_off_gradients_are_off_and_each_mode_comes_back(batches: Batches) -> None:
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.seen = model(), []

        def forward(self, x: Tensor) -> Tensor:
            self.seen += [torch.is_grad_enabled(), *(module.training for module in self.modules())]
            return self.net(x)

    watched = Watched()
    watched.net.dropout1.eval()
    modes = [module.training for module in watched.modules()]
    state = torch.get_rng_state()
    assert evaluate(watched, batches) == evaluate(watched, batches)
    assert watched.seen
    assert not any(watched.seen)
    assert [module.training for module in watched.modules()] == modes
    assert True in modes
    assert False in modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(param.grad is None for param in watched.parameters())
    assert torch.is_grad_enabled()


def test_each_mode_comes_back_after_an_error(batches: Batches) -> None:
    net = mlp([7, 5])
    with pytest.raises(RuntimeError):
        evaluate(net, batches)
    assert net.training


def test_batches_of_any_size_give_the_same(batches: Batches) -> None:
    net = model()
    whole = evaluate(net, Batches(batches.images, batches.labels, 0, shuffle=False))
    assert whole.loss == pytest.approx(evaluate(net, batches).loss, rel=1e-6)
    assert whole.accuracy == evaluate(net, batches).accuracy


def test_images_held_out_are_not_trained_on_and_none_is_lost(tiny: Callable[..., Conf]) -> None:
    parts, data = set_up(tiny(data={"dir": None, "validation": 0.2})), load("sample")
    assert parts.validation is not None
    every, labels = normalize(data.train, data.mean, data.std)
    train, held_out = parts.train.images, parts.validation.images
    assert (len(train), len(held_out)) == (4800, 1200)

    def keys(images: Tensor, of: Tensor) -> list[bytes]:
        return [image.numpy().tobytes() + bytes([label]) for image, label in zip(images, of.tolist(), strict=True)]

    trained, aside = keys(train, parts.train.labels), keys(held_out, parts.validation.labels)
    assert sorted(trained + aside) == sorted(keys(every, labels))
    assert not set(trained) & set(aside)


def test_the_best_checkpoint_is_of_the_epoch_best_on_the_images_held_out(tiny: Callable[..., Conf]) -> None:
    conf = tiny(epochs=8, optim={"lr": 0.5}, data={"validation": 0.3})
    result = fit(conf, observers=[])
    accuracies = [row["val_accuracy"] for row in result.rows]
    best = torch.load(result.folder.best, weights_only=True)
    assert best["epoch"] == result.summary["best_epoch"] == accuracies.index(max(accuracies)) + 1
    assert result.summary["best_val_accuracy"] == max(accuracies)
    parts = set_up(conf)
    assert parts.validation is not None
    parts.model.load_state_dict(best["model"])
    assert evaluate(parts.model, parts.validation).accuracy == max(accuracies)
    assert evaluate(parts.model, parts.test).accuracy == result.summary["best_test_accuracy"]
    assert evaluate(result.model, parts.test).accuracy == result.summary["test_accuracy"]


def test_of_epochs_equally_good_the_first_is_the_best(tiny: Callable[..., Conf]) -> None:
    result = fit(tiny(optim={"lr": 0.0}), observers=[])
    assert len({row["val_accuracy"] for row in result.rows}) == 1
    assert result.summary["best_epoch"] == 1


def test_autocast_is_used_and_the_loss_is_taken_in_full_precision(batches: Batches) -> None:
    net = model()
    half, full = evaluate(net, batches, torch.bfloat16), evaluate(net, batches)
    assert half.loss != full.loss
    assert half.loss == pytest.approx(full.loss, rel=0.02)
