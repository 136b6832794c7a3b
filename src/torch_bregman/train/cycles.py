"""Controls beside a compact form: what they read is brought up to date, what they freeze is told to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_bregman.multilevel import CompactForm
from torch_bregman.schedulers import Consolidation, CycleSchedule, SizeControl
from torch_bregman.schedulers.support import Support


def advance(control: Any, form: CompactForm | None) -> None:
    """Advance a control by a step.

    Args:
        control: what steers λ or freezes the network; of one from outside, nothing is known.
        form: that trains the model, or None.
    """
    if form is None or isinstance(control, CycleSchedule):
        control.step()
    elif isinstance(control, SizeControl):
        if control.due:
            form.settle()
        control.step()
    elif isinstance(control, Consolidation):
        if control.due:
            form.write()
        control.step()
        hold([control], form)
    else:
        form.write()
        control.step()


def hold(controls: Sequence[Any], form: CompactForm) -> None:
    """Let a form go on with the supports that consolidations have frozen."""
    frozen = [each for control in controls if isinstance(control, Consolidation) for each in control.frozen]
    if frozen and not form.masks:
        form.freeze({id(each.param): each.mask for each in frozen if isinstance(each, Support)})
