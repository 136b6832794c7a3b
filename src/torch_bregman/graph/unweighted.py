"""Functions without weights: they pass units on, move them about, pool them, or mix them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torch_bregman.graph.labels import FIXED, NEUTRAL, varies
from torch_bregman.graph.tape import NAN, Call, Rule, Tape, Value
from torch_bregman.graph.weighted import masked


def elementwise(tape: Tape, call: Call) -> None:
    """A function of one tensor, entry by entry."""
    x = call.tensors()[0]
    value = tape.value(x)
    tape.put(call.output, Value(value.labels, masked(call, x, value.constant)))


def same(tape: Tape, call: Call) -> None:
    """The same entries in another type, place or memory; dropout too, which is idle in evaluation."""
    x = call.tensors()[0]
    tape.put(call.output, tape.value(x))


def moving(tape: Tape, call: Call) -> None:
    """Entries in another order or shape: labels and constants take the same way."""
    values = {id(t): tape.value(t) for t in call.tensors()}
    labels = call.rerun(lambda t: values[id(t)].labels)
    constants = call.rerun(lambda t: values[id(t)].constant)
    outputs = (tree_leaves(call.output), tree_leaves(labels), tree_leaves(constants))
    for out, label, constant in zip(*outputs, strict=True):
        tape.put(out, Value(label, constant))


def sized(tape: Tape, call: Call) -> None:
    """A new shape: a length given as a number must not depend on units that may go."""
    moving(tape, call)
    labels = tape.value(call.output).labels
    asked = _asked_sizes(call)
    for dim in range(labels.ndim):
        if varies(labels, dim) and asked[dim] != -1 and not (tape.trusting and _survives(tape, call, dim)):
            tape.labels.pin(labels, f"{call.where} gives the length {asked[dim]} to {call.name!r} as a number")


def _asked_sizes(call: Call) -> list[int]:
    """Return the sizes that were asked for, as many as the output has."""
    if call.name == "unflatten":
        x, dim, sizes = call.bind("input", "dim", "sizes")
        dim %= x.ndim
        return [-1 if d != dim else n for d in range(x.ndim) for n in (sizes if d == dim else [0])]
    given = [n for n in tree_leaves((call.args[1:], call.kwargs)) if isinstance(n, int)]
    ndim = call.output.ndim
    return given if len(given) == ndim else list(call.output.shape)


def _survives(tape: Tape, call: Call, dim: int) -> bool:
    """Return whether the input has the same units along a dimension, so that its length may be read there."""
    x = call.tensors()[0]
    units = _profile(tape.value(call.output).labels, dim)
    before = tape.value(x).labels
    return any(torch.equal(_profile(before, d), units) for d in range(x.ndim) if x.shape[d] == len(units))


def _profile(labels: Tensor, dim: int) -> Tensor:
    return labels.movedim(dim, 0).flatten(1)[:, 0]


def picking(tape: Tape, call: Call) -> None:
    """A part of the entries, which must hold a part of every unit."""
    moving(tape, call)
    for out in tree_leaves(call.output):
        for x in call.tensors():
            if tape.is_active(x):
                before, after = tape.value(x).labels, tape.value(out).labels
                if not torch.equal(before.unique(), after.unique()):
                    tape.labels.pin(before, f"{call.where} picks some of its units by {call.name!r}")


def combining(tape: Tape, call: Call) -> None:
    """A function of several tensors, entry by entry: units that meet become one."""
    tensors = [t for t in call.tensors() if t.numel() != 1 or tape.is_active(t)]
    active = [t for t in tensors if tape.is_active(t)]
    shape = call.output.shape
    labels = _met(tape, call, active, shape)
    for other in tensors:
        if not tape.is_active(other):
            labels = _meet_state(tape, call, other, labels)
    constants = {id(t): tape.value(t).constant for t in active}
    unknown = torch.stack([torch.broadcast_to(c.isnan(), shape) for c in constants.values()]).any(0)
    result = call.rerun(lambda t: constants[id(t)].clone() if id(t) in constants else t)
    tape.put(call.output, Value(labels, torch.where(unknown, NAN, result)))


def _met(tape: Tape, call: Call, active: list[Tensor], shape: torch.Size) -> Tensor:
    """Merge the units of activations; those spread over the units of another are not removable with them."""
    wide = [torch.broadcast_to(tape.value(t).labels, shape) for t in active]
    full = []
    for tensor, labels in zip(active, wide, strict=True):
        own = (1,) * (len(shape) - tensor.ndim) + tuple(tensor.shape)
        stretched = [d for d in range(len(shape)) if own[d] == 1 and shape[d] > 1]
        if any(varies(other, d) for d in stretched for other in wide):
            tape.labels.pin(labels, f"{call.where} spreads it over other units")
        else:
            full.append(labels)
    if not full:
        for labels in wide:
            tape.labels.pin(labels, f"{call.where} spreads it over other units")
        return torch.full(shape, FIXED)
    met = full[0]
    for labels in full[1:]:
        tape.labels.merge(met, labels)
        met = torch.where(met < 0, labels, met)
    return tape.labels.find(met)


def _meet_state(tape: Tape, call: Call, other: Tensor, labels: Tensor) -> Tensor:
    """Let a parameter or buffer go along with the units it meets; whatever else has their length pins them."""
    offset = labels.ndim - other.ndim
    along = [d for d in range(other.ndim) if other.shape[d] > 1 and varies(labels, d + offset)]
    if not along:
        return labels
    if id(other) in tape.names and len(along) == 1:
        dim = along[0]
        units = tape.labels.merge_along(labels, [d for d in range(labels.ndim) if d != dim + offset])
        tape.axis(other, dim, "carries", units)
        return tape.labels.find(labels)
    tape.labels.pin(labels, f"{call.where} combines it with a tensor that is no plain parameter of the model")
    return labels


def pooling(spatial: int | None) -> Rule:
    """Return the rule of what works on every channel by itself.

    Args:
        spatial: number of spatial dimensions; None for all behind the second.
    """

    def rule(tape: Tape, call: Call) -> None:
        x = call.tensors()[0]
        out = call.output if isinstance(call.output, Tensor) else call.output[0]
        axis = 1 if spatial is None else x.ndim - spatial - 1
        value = tape.value(x)
        others = [d for d in range(x.ndim) if d != axis and (axis == 0 or d != 0)]
        channels = tape.labels.merge_along(value.labels, others)
        labels = channels.reshape(*channels.shape, *[1] * len(others)).expand(out.shape)
        unknown = value.constant.isnan().flatten(axis + 1).any(-1)
        pooled = call.rerun(lambda t: value.constant.nan_to_num(0.0) if t is x else t)
        pooled = pooled if isinstance(pooled, Tensor) else pooled[0]
        hidden = unknown.reshape(*unknown.shape, *[1] * len(others)).expand(out.shape)
        tape.put(out, Value(labels, torch.where(hidden, NAN, pooled)))

    return rule


def reducing(tape: Tape, call: Call) -> None:
    """A sum or mean over some dimensions, which must not run over units."""
    x = call.tensors()[0]
    value = tape.value(x)
    dims = next((d for d in (*call.args[1:2], call.kwargs.get("dim")) if d is not None), None)
    dims = list(range(x.ndim)) if dims is None else [dims] if isinstance(dims, int) else list(dims)
    labels = value.labels
    if any(varies(labels, d) for d in dims):
        tape.stop(call, f"{call.where} adds up its units by {call.name!r}")
        return
    keep = call.output.ndim == x.ndim
    for d in sorted((d % x.ndim for d in dims), reverse=True):
        labels = labels.narrow(d, 0, 1) if keep else labels.select(d, 0)
    result = call.rerun(lambda t: value.constant if t is x else t)
    tape.put(call.output, Value(labels, result))


def mixing(tape: Tape, call: Call) -> None:
    """A normalisation over several units: none of them may go, for the others would change."""
    x = call.tensors()[0]
    value = tape.value(x)
    tape.labels.pin(value.labels, f"{call.where} mixes it with other units")
    tape.put(call.output, Value(value.labels, torch.full_like(call.output, NAN)))


def softmax(tape: Tape, call: Call) -> None:
    """Mixing along one dimension, which must not run over units."""
    x, dim = call.bind("input", "dim")
    value = tape.value(x)
    if dim is None or varies(value.labels, dim):
        mixing(tape, call)
    else:
        tape.put(call.output, Value(value.labels, torch.full_like(call.output, NAN)))


def padding(tape: Tape, call: Call) -> None:
    """Zeros around, or copies of the border."""
    x, sizes = call.bind("input", "pad")
    value, outside = tape.value(x), call.bind("input", "pad", "mode", "value")[3]
    padded = [x.ndim - 1 - i // 2 for i, n in enumerate(sizes) if n]
    across = any(varies(value.labels, d) for d in padded)
    mode = call.bind("input", "pad", "mode")[2] or "constant"
    if mode == "constant":
        label = FIXED if across or outside else NEUTRAL
        labels = nn.functional.pad(value.labels, list(sizes), value=label)
        constant = nn.functional.pad(value.constant, list(sizes), value=float(outside or 0))
    else:
        labels = call.rerun(lambda t: value.labels.double() if t is x else t).round().long()
        constant = call.rerun(lambda t: value.constant if t is x else t)
    tape.put(call.output, Value(labels, constant))


def _named(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_UNARY = (
    "relu relu6 leaky_relu elu selu celu gelu silu mish softplus softsign tanh tanhshrink sigmoid logsigmoid hardtanh "
    "hardswish hardsigmoid hardshrink softshrink threshold abs neg exp log log1p expm1 sqrt rsqrt square sin cos erf "
    "reciprocal clamp clip clamp_min clamp_max sign rrelu"
)
_BINARY = (
    "add sub mul div true_divide radd rsub rmul rtruediv truediv iadd isub imul itruediv maximum minimum pow ipow "
    "addcmul addcdiv lerp"
)
_SAME = (
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout contiguous clone detach "
    "to float double half bfloat16 type cpu alias type_as requires_grad"
)
_MOVING = (
    "transpose permute t movedim moveaxis swapaxes swapdims squeeze unsqueeze flatten ravel cat concat concatenate "
    "stack pixel_shuffle pixel_unshuffle get"
)
_SIZED = "view reshape unflatten expand view_as reshape_as expand_as broadcast_to"
_PICKING = "getitem select narrow split split_with_sizes chunk unbind tensor_split index_select"
UNWEIGHTED: dict[str, Rule] = {
    **_named(_UNARY, elementwise),
    **_named(_BINARY, combining),
    **_named(_SAME, same),
    **_named(_MOVING, moving),
    **_named(_SIZED, sized),
    **_named(_PICKING, picking),
    **_named("mean sum amax amin", reducing),
    **_named("layer_norm rms_norm group_norm normalize local_response_norm", mixing),
    **_named("softmax log_softmax softmin", softmax),
    **_named("interpolate upsample", pooling(None)),
    "pad": padding,
    **{
        f"{kind}_pool{n}d": pooling(n)
        for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp")
        for n in (1, 2, 3)
    },
    **{f"{kind}_pool{n}d_with_indices": pooling(n) for kind in ("max", "adaptive_max") for n in (1, 2, 3)},
}
