"""What the contract suite runs over: every row of `REGULARIZERS`, on every view where it has one, with drawn numbers.

A new row is found here by itself. Fields that are not in `OPTIONS` keep their default.
"""

from __future__ import annotations

import dataclasses

import hypothesis.extra.numpy as hnp
import numpy as np
import torch
from hypothesis import strategies as st

from tests.partition import SHAPES, groups
from torch_bregman.regularizers import REGULARIZERS, Regularizer, UnitL2

OPTIONS = {"l1_ratio": st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]), "weighted": st.booleans()}
LAM = st.floats(0.05, 3).map(lambda lam: round(lam, 3))
STEP = st.sampled_from([0.25, 1.0, 3.0])
ENTRY = st.floats(-4, 4).map(lambda entry: round(entry, 3))


@dataclasses.dataclass(frozen=True)
class Setting:
    """A row of the table, on one of the views."""

    kind: type[Regularizer]
    view: str | None

    def __str__(self):
        return self.kind.name if self.view is None else f"{self.kind.name}-{self.view}"

    def make(self, lam=0.5, **options):
        """Return the regulariser, on this view."""
        return self.kind(lam, **({} if self.view is None else {"view": self.view}), **options)

    def shapes(self):
        """Return small shapes that it accepts."""
        return SHAPES[self.groups_as]

    def strategy(self, lam=LAM):
        """Draw λ and the options."""
        names = {field.name for field in dataclasses.fields(self.kind)}
        return st.builds(self.make, lam=lam, **{name: OPTIONS[name] for name in OPTIONS if name in names})

    def groups(self, shape):
        """Return the flat indices of the groups, single entries where there is no view."""
        return groups(self.groups_as, shape)

    @property
    def groups_as(self):
        """The view that has the same groups, for those without one too."""
        return self.view or ("rows" if self.kind is UnitL2 else "elements")


def has_penalty(kind):
    """Tell true penalties from random maps, which have no value."""
    try:
        kind().value(torch.zeros(2))
    except TypeError:
        return False
    return True


def settings(kind):
    """Return the row on every view, or once where it has none."""
    views = SHAPES if any(field.name == "view" for field in dataclasses.fields(kind)) else [None]
    return [Setting(kind, view) for view in views]


@st.composite
def problems(draw, setting, count=1, lam=LAM):
    """Draw a regulariser and `count` float64 tensors of one shape that it accepts, some of their groups zero."""
    reg = draw(setting.strategy(lam))
    shape = draw(st.sampled_from(setting.shapes()))
    return reg, *(draw(tensors(setting, shape)) for _ in range(count))


@st.composite
def tensors(draw, setting, shape):
    """Draw a float64 tensor, some of its groups zero."""
    x = draw(hnp.arrays(np.float64, shape, elements=ENTRY))
    for group in setting.groups(shape):
        if draw(st.integers(0, 4)) == 4:
            x.reshape(-1)[group] = 0
    return torch.from_numpy(x)


def in_domain(reg, x):
    """Return the nearest point where J is finite."""
    return reg.prox(x, lam=0.0)


def is_norm(setting):
    """Tell whether J₁ is positively homogeneous and vanishes at 0 alone, so that its dual norm is finite."""
    reg, x = setting.make(), torch.ones(setting.shapes()[-1])
    return reg.homogeneous and bool(torch.isfinite(reg.dual_norm(x)))


ALL = [setting for kind in REGULARIZERS.values() for setting in settings(kind)]
PENALTIES = [setting for setting in ALL if has_penalty(setting.kind) and setting.kind.convex]
NORMS = [setting for setting in PENALTIES if is_norm(setting)]
