"""Which rule a parameter falls under, rules being keyed by module type or by name.

Sparse starts and parameter groups read their rules in the same way: names are tried before types, and within each kind
the first that fits wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import nn
from torch.nn.parameter import is_lazy

from torch_bregman.views import View, get_view

Key: TypeAlias = type[nn.Module] | str | tuple[str, ...]
"""A module type such as `nn.Linear`, a glob over names such as "features.*" or "*.weight", or the exact names of
parameters that a regulariser takes together."""


@dataclass(frozen=True, eq=False)
class Place:
    """A parameter, and where in a model it lives.

    Args:
        name: its full name.
        param: itself.
        modules: the modules around it by name, from the model (named "") inwards to the one that owns it.
        aliases: where else it lives, if it is tied.
    """

    name: str
    param: nn.Parameter
    modules: dict[str, nn.Module]
    aliases: tuple[Place, ...] = ()

    def matches(self, key: Key) -> bool:
        """Return whether a key is the name of the parameter or of a module around it, or the type of one."""
        if isinstance(key, tuple):
            return self.name in key
        if isinstance(key, str):
            return any(fnmatchcase(name, key) for name in (self.name, *filter(None, self.modules)))
        return any(isinstance(module, key) for module in self.modules.values())

    @property
    def owner(self) -> nn.Module:
        """The module whose parameter it is."""
        return self.modules[next(reversed(self.modules))]

    @property
    def is_weight(self) -> bool:
        """Whether it has 2 or more dimensions, and is neither a bias nor part of a normalisation."""
        bias = self.name.rpartition(".")[2].startswith("bias")
        return self.param.ndim >= 2 and not bias and not isinstance(self.owner, (nn.LayerNorm, nn.RMSNorm))


def collect(model: nn.Module, named: Iterable[tuple[str, nn.Parameter]]) -> list[Place]:
    """Return the places of parameters, tied ones once, under the first of their names.

    Args:
        model: the root.
        named: full names and parameters, tied ones under each of their names.

    Raises:
        ValueError: for a lazy parameter, which has no shape yet.
    """
    twins: dict[int, list[Place]] = {}
    for name, param in named:
        if is_lazy(param):
            raise ValueError(f"parameter {name!r} has no shape yet: run the model once on a batch")
        twins.setdefault(id(param), []).append(Place(name, param, _around(model, name)))
    return [Place(first.name, first.param, first.modules, tuple(rest)) for first, *rest in twins.values()]


def assign(keys: Iterable[Key], places: Sequence[Place]) -> list[Key | None]:
    """Return for each place the key of the rule it falls under, None where there is none.

    Names are tried before types, in the order in which they come. A key covers the weights (see `Place.is_weight`)
    among what it matches; a name that matches no weight covers the biases and normalisation parameters it matches.
    A type may be idle, for one set of rules serves several models: no module of it here, or none left by other keys.

    Raises:
        ValueError: for a key that is neither a string nor a module type, a name that no place falls under, and a type
            under which none can ever fall: its modules have no weights, or a type it derives from stands before it.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
        >>> assign([nn.Linear, "2", "1.weight"], collect(model, model.named_parameters()))[::2]
        [<class 'torch.nn.modules.linear.Linear'>, '1.weight', '2']
    """
    chosen: list[Key | None] = [None] * len(places)
    ordered = _ordered(keys)
    for rank, key in enumerate(ordered):
        covered = _covered(key, places)
        mine = [i for i in covered if chosen[i] is None]
        earlier = dict.fromkeys(spell(k) for i in covered if (k := chosen[i]) is not None)
        whole = len(mine) == len(key) if isinstance(key, tuple) else bool(mine)
        if fault := _vain_type(key, places, ordered[:rank]) or (
            "" if whole else _vain_name(key, places, list(earlier))
        ):
            raise ValueError(f"the rule for {spell(key)} applies to nothing: {fault}")
        for i in mine:
            chosen[i] = key
    return chosen


def fitting_view(view: str | View, place: Place) -> View:
    """Return the view of that name.

    Raises:
        ValueError: where it is unknown, or does not fit the parameter, which the message names.
    """
    view = get_view(view)
    try:
        view.check(place.param.shape)
    except ValueError as error:
        raise ValueError(f"parameter {place.name!r}: {error}") from None
    return view


def spell(key: Key) -> str:
    """Return a key as it reads in a message: a name in quotes, a type by its name."""
    return key.__name__ if isinstance(key, type) else repr(key)


def _around(model: nn.Module, name: str) -> dict[str, nn.Module]:
    found, here, path = {"": model}, model, name.split(".")[:-1]
    for depth, part in enumerate(path, start=1):
        here = here.get_submodule(part)
        found[".".join(path[:depth])] = here
    return found


def _ordered(keys: Iterable[Key]) -> list[Key]:
    keys = list(keys)
    for key in keys:
        if not _is_key(key):
            raise ValueError(f"{key!r} cannot name a rule: use a module type (nn.Linear) or a name ('features.*')")
    return sorted(keys, key=lambda key: isinstance(key, type))


def _is_key(key: object) -> bool:
    if isinstance(key, tuple):
        return bool(key) and all(isinstance(name, str) for name in key)
    return isinstance(key, str) or (isinstance(key, type) and issubclass(key, nn.Module))


def _covered(key: Key, places: Sequence[Place]) -> list[int]:
    matched = [i for i, place in enumerate(places) if place.matches(key)]
    if isinstance(key, tuple):
        return matched
    weights = [i for i in matched if places[i].is_weight]
    return weights if weights or not isinstance(key, str) else matched


def _vain_type(key: Key, places: Sequence[Place], before: Sequence[Key]) -> str:
    """Return why no place of any model can fall under a type; empty for a name, and for a type that is merely idle."""
    if not isinstance(key, type):
        return ""
    for other in before:
        if isinstance(other, type) and issubclass(key, other):
            return f"what it matches falls under {spell(other)}, tried before it: put the narrower type first"
    if any(place.matches(key) for place in places) and not _covered(key, places):
        return "its parameters are no weights with 2 or more dimensions: name them, e.g. '*.bias'"
    return ""


def _vain_name(key: Key, places: Sequence[Place], earlier: list[str]) -> str:
    """Return why no place falls under a name; empty for a type, which may be idle."""
    if isinstance(key, type):
        return ""
    if earlier:
        return f"what it matches falls under {', '.join(earlier)}, tried before it (names before types, then in order)"
    for place in places:
        if any(alias.matches(key) for alias in place.aliases):
            return f"what it matches is tied to {place.name!r}: use that name"
    names = [place.name for place in places]
    return _close_names(key if isinstance(key, str) else next((n for n in key if n not in names), key[0]), names)


def _close_names(key: str, names: list[str]) -> str:
    close = get_close_matches(key, names, n=4, cutoff=0.4) or names[:4]
    return f"there are {', '.join(map(repr, close))}" + (" and others" if len(names) > len(close) else "")
