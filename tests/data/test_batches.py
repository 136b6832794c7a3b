from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_bregman.data import Batches


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(float(count)).view(-1, 1, 1, 1).expand(count, 1, 2, 2).contiguous(), torch.arange(count)


@given(size=st.integers(1, 40), batch_size=st.integers(0, 50), shuffle=st.booleans(), drop_last=st.booleans())
def test_an_epoch_has_every_index_once(size, batch_size, shuffle, drop_last):
    batches = Batches(*numbered(size), batch_size, shuffle=shuffle, drop_last=drop_last)
    pairs = list(batches.epoch(seeded()))
    assert len(pairs) == len(batches)
    for x, y in pairs:
        assert torch.equal(x[:, 0, 1, 1].long(), y)
    seen = [label for _, y in pairs for label in y.tolist()]
    step = batch_size if 0 < batch_size < size else size
    used = size // step * step if drop_last else size
    assert len(pairs) == math.ceil(used / step)
    assert len(set(seen)) == len(seen) == used
    assert all(len(y) == step for _, y in pairs[:-1])
    if not shuffle:
        assert seen == list(range(used))


def test_epochs_differ_and_are_told_by_the_generator_alone():
    batches = Batches(*numbered(30), 7)

    def epochs(seed):
        generator = seeded(seed)
        torch.rand(seed + 1)  # the global generator has no say
        return [[label for _, y in batches.epoch(generator) for label in y.tolist()] for _ in range(2)]

    first = epochs(3)
    assert first == epochs(3)
    assert first[0] != first[1]
    assert first != epochs(4)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    for _ in Batches(*numbered(9), 2).epoch(seeded()):
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_the_order_is_one_permutation_of_the_generator():
    seen = torch.cat([y for _, y in Batches(*numbered(20), 6).epoch(seeded(5))])
    assert torch.equal(seen, torch.randperm(20, generator=seeded(5)))


@pytest.mark.parametrize("batch_size", [0, 8, 100])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_full_batch_is_the_data_itself(batch_size, shuffle):
    images, labels = numbered(8)
    batches = Batches(images, labels, batch_size, shuffle=shuffle)
    ((x, y),) = batches.epoch()
    assert len(batches) == 1
    assert x.data_ptr() == images.data_ptr()
    assert torch.equal(y, labels)


def test_batches_in_order_are_views():
    images, labels = numbered(8)
    pairs = list(Batches(images, labels, 3, shuffle=False).epoch())
    assert [x.data_ptr() for x, _ in pairs] == [images[start:].data_ptr() for start in (0, 3, 6)]


def test_augmentation_has_each_batch_and_the_generator():
    generator, calls = seeded(), []

    def augment(x, given):
        assert given is generator
        calls.append(len(x))
        return x + 100

    pairs = list(Batches(*numbered(5), 2, augment=augment).epoch(generator))
    assert calls == [2, 2, 1]
    assert all(torch.equal(x[:, 0, 0, 0].long(), y + 100) for x, y in pairs)


def test_wrong_arguments_are_refused():
    images, labels = numbered(4)
    with pytest.raises(ValueError, match="4 images on cpu and 3 labels on cpu: must be as many of both"):
        Batches(images, labels[:3], 2)
    with pytest.raises(ValueError, match="at least one"):
        Batches(images[:0], labels[:0], 2)
    with pytest.raises(ValueError, match="on one device"):
        Batches(images.to("meta"), labels, 2)
    with pytest.raises(ValueError, match="batch_size is -1, must be 0"):
        Batches(images, labels, -1)
    with pytest.raises(ValueError, match="need a generator: pass torch"):
        Batches(images, labels, 2).epoch()
    with pytest.raises(ValueError, match="need a generator"):
        Batches(images, labels, 0, augment=lambda x, generator: x).epoch()
