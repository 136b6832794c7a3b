"""Parameter groups: which regulariser, and which options, each parameter of a model gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import nn

from torch_bregman.metrics import text_table
from torch_bregman.regularizers import NoRegularizer, Regularizer
from torch_bregman.rules import Key, Place, assign, collect, fitting_view, spell

Rule: TypeAlias = Regularizer | Mapping[str, Any]
"""A regulariser, or options of a group with one of them under "regularizer"."""


class ParamGroups(list[dict[str, Any]]):
    """Parameter groups for any `torch.optim.Optimizer`, that print as a table of what was regularised how.

    Each is a dict with "params", a list of tensors, "param_names", their names (torch's own key for them, so that they
    reach the optimizer and its state_dict), "regularizer", and the options of its rule.
    """

    def __repr__(self) -> str:
        rows = [
            [name, " × ".join(map(str, param.shape)), _describe(group["regularizer"])]
            for group in self
            for name, param in zip(group["param_names"], group["params"], strict=True)
        ]
        return "\n".join(text_table(["parameter", "shape", "regulariser"], rows))

    __str__ = __repr__


def param_groups(model: nn.Module, rules: Mapping[Any, Rule], **defaults: Any) -> ParamGroups:
    """Return parameter groups that say which regulariser each parameter gets.

    A key is a module type (subclasses count) or a glob (`fnmatch`, case matters) over the names of parameters or
    modules; one that fits a module covers all within it. Globs are tried before types, each kind in the order of the
    dict, and the first that fits a parameter wins. A tuple of names stands for these parameters, in this order, which a
    regulariser takes together (`outgoing_groups`); it counts as a glob.

    Biases and the parameters of normalisation layers are left unregularised: keys cover the weights (2 or more
    dimensions) among what they match. Only a glob that matches no weight, such as "*.bias" or "bn1.weight", covers what
    it names instead.

    `nn.MultiheadAttention` as a key covers its in-projection and, since it lies within, the weight of `out_proj`. That
    is a linear layer too: of `nn.Linear` and `nn.MultiheadAttention` the one that comes first gets it.

    Args:
        model: any module. Frozen parameters are left out; tied ones come once, under the first of their names, which
            is the one keys must match.
        rules: from keys (`Key`; typed Any, for a dict of names alone to be one) to a regulariser, or to a dict of group
            options with a regulariser under "regularizer".
        defaults: options of every group, e.g. lr; those of a rule go before them.

    Returns:
        One group for each rule that something falls under, in the order of `rules`, and last one with `NoRegularizer`
        for all other parameters, if there are any. A name must apply to something; a type need not, so that one set of
        rules serves several models. torch wants all groups of an optimizer to be alike in having names: one given to
        `add_param_group` later needs "param_names" too.

    Raises:
        ValueError: for a name that applies to nothing (no match, tied or frozen parameters only, or all taken by an
            earlier rule), a type that never can, a rule without a regulariser, an option that is not free (params,
            param_names; as a default regularizer too), a view that does not fit a parameter, a model without trainable
            parameters.

    Example:
        >>> from torch_bregman.regularizers import L1, GroupL2
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
        >>> groups = param_groups(model, {nn.Conv2d: GroupL2(0.1), "3.*": {"regularizer": L1(0.2), "lr": 0.01}}, lr=0.1)
        >>> print(groups)
        parameter  shape          regulariser
        ---------  -------------  --------------------------------------------
        0.weight   4 × 1 × 3 × 3  GroupL2(lam=0.1, view=Rows(), weighted=True)
        3.weight   2 × 16         L1(lam=0.2)
        0.bias     4              none
        1.weight   4              none
        1.bias     4              none
        3.bias     2              none
        >>> [group["lr"] for group in groups]
        [0.1, 0.01, 0.1]
    """
    _check_free("param_groups", defaults, {"params", "param_names", "regularizer"})
    places = collect(model, model.named_parameters(remove_duplicate=False))
    options = {key: _options(key, rule) for key, rule in rules.items()}
    members: dict[Key | None, list[Place]] = {key: [] for key in (*rules, None)}
    for place, key in zip(places, assign(rules, places), strict=True):
        if place.param.requires_grad:
            members[key].append(place)
    if not any(members.values()):
        raise ValueError(
            f"{type(model).__name__} has no trainable parameters: set requires_grad where you want training"
        )
    used = [key for key in rules if members[key] or not isinstance(key, type)]
    groups = [_group(key, members[key], {**defaults, **options[key]}) for key in used]
    rest = [_group(None, members[None], {**defaults, "regularizer": NoRegularizer()})] if members[None] else []
    return ParamGroups(groups + rest)


def _options(key: Key, rule: Rule) -> dict[str, Any]:
    options = dict(rule) if isinstance(rule, Mapping) else {"regularizer": rule}
    _check_free(f"the rule for {spell(key)}", options, {"params", "param_names"})
    given = isinstance(options.get("regularizer"), Regularizer)
    if not given:
        raise ValueError(
            f"the rule for {spell(key)} must be a regularizer such as L1(0.1), or a dict with one under 'regularizer', "
            f"got {rule!r}"
        )
    return options


def _check_free(who: str, options: Mapping[str, Any], reserved: set[str]) -> None:
    if clash := sorted(reserved & options.keys()):
        raise ValueError(f"{who} must not set {', '.join(map(repr, clash))}: keys of rules say what is for whom")


def _group(key: Key | None, places: list[Place], options: dict[str, Any]) -> dict[str, Any]:
    if isinstance(key, tuple):
        places = _in_order(key, places)
    if key is not None and not places:
        raise ValueError(
            f"the rule for {spell(key)} applies to nothing: all it matches is frozen (requires_grad is False)"
        )
    view = getattr(options["regularizer"], "view", None)
    for place in places:
        if view is not None:
            fitting_view(view, place)
    return {"params": [p.param for p in places], "param_names": [p.name for p in places], **options}


def _in_order(names: tuple[str, ...], places: list[Place]) -> list[Place]:
    """Return the places in the order of a key that names them all."""
    found = {place.name: place for place in places}
    if frozen := [name for name in names if name not in found]:
        raise ValueError(f"the rule for {names!r} takes them together, but {frozen[0]!r} is frozen: leave it out")
    return [found[name] for name in names]


def _describe(regularizer: Regularizer) -> str:
    return "none" if isinstance(regularizer, NoRegularizer) else repr(regularizer)
