"""Functions with weights: they read units, make new ones, or pass them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torch_bregman.graph.labels import varies
from torch_bregman.graph.tape import NAN, Call, Rule, Tape, Value, fixed


def linear(tape: Tape, call: Call) -> None:
    """Columns read, rows make."""
    x, weight, bias = call.bind("input", "weight", "bias")
    if not (tape.is_active(x) and _own(tape, weight, bias)):
        tape.stop(call, f"the weight of {call.where} is computed, or its input is constant")
        return
    value = tape.value(x)
    read(tape, weight, 1, value, -1, foldable=True)
    rows = make(tape, weight, 0, bias)
    constant = _weighted_constant(call, value.constant, x, weight)
    tape.put(call.output, Value(spread(rows, call.output, -1), constant))
    tape.note_product(call.output, weight)


def matmul(tape: Tape, call: Call) -> None:
    """A product with a matrix of the model reads its rows and makes its columns; one of activations mixes units."""
    a, b = call.bind("input", "other")
    if tape.is_active(a) and id(b) in tape.names and b.ndim == 2:
        value = tape.value(a)
        read(tape, b, 0, value, -1, foldable=False)
        columns = make(tape, b, 1, None)
        tape.put(call.output, Value(spread(columns, call.output, -1), _nothing(call.output)))
    else:
        _weigh(tape, call, [a], b)


def attend(tape: Tape, call: Call) -> None:
    """Scaled dot products mix the units of queries and keys; those of the values pass."""
    query, key, value = call.bind("query", "key", "value")
    _weigh(tape, call, [query, key], value)


def _weigh(tape: Tape, call: Call, weights: list[Tensor], x: Tensor) -> None:
    """Follow a sum over the last but one dimension of x, weighed by what may not depend on units."""
    for each in weights:
        tape.labels.pin(tape.value(each).labels, f"it is multiplied by other activations in {call.where}")
    labels = tape.value(x).labels
    if x.ndim < 2 or varies(labels, -2) or labels.shape[:-2] != call.output.shape[:-2]:
        tape.stop(call, f"it is multiplied by other activations in {call.where}")
        return
    columns = labels.narrow(-2, 0, 1).expand(call.output.shape)
    tape.put(call.output, Value(columns, _nothing(call.output)))


def convolution(spatial: int) -> Rule:
    """Return the rule of a convolution: slices read, filters make; groups live or die as one."""

    def rule(tape: Tape, call: Call) -> None:
        x, weight, bias, _, padding, _, groups = call.bind(
            "input", "weight", "bias", "stride", "padding", "dilation", "groups"
        )
        axis = x.ndim - spatial - 1
        if not (tape.is_active(x) and _own(tape, weight, bias)):
            tape.stop(call, f"the weight of {call.where} is computed, or its input is constant")
            return
        value = tape.value(x)
        if (groups or 1) > 1:
            rows = _grouped(tape, weight, value, axis, groups)
            tape.axis(weight, 0, "carries", rows)
            tape.axis(bias, 0, "carries", rows)
        else:
            padded = padding == "same" or (padding not in (None, "valid") and torch.tensor(padding).any())
            read(tape, weight, 1, value, axis, foldable=not padded)
            rows = make(tape, weight, 0, bias)
        constant = _weighted_constant(call, value.constant, x, weight)
        tape.put(call.output, Value(spread(rows, call.output, axis), constant))
        tape.note_product(call.output, weight)

    return rule


def transposed_convolution(spatial: int) -> Rule:
    """Return the rule of a transposed convolution, whose weight is in × out."""

    def rule(tape: Tape, call: Call) -> None:
        x, weight, bias, _, _, _, groups = call.bind(
            "input", "weight", "bias", "stride", "padding", "output_padding", "groups"
        )
        if not (tape.is_active(x) and _own(tape, weight, bias)) or (groups or 1) > 1:
            tape.stop(call, f"the weight of {call.where} is computed, or cut into groups")
            return
        axis, value = x.ndim - spatial - 1, tape.value(x)
        read(tape, weight, 0, value, axis, foldable=False)
        columns = make(tape, weight, 1, bias)
        constant = _weighted_constant(call, value.constant, x, weight)
        tape.put(call.output, Value(spread(columns, call.output, axis), constant))

    return rule


def embedding(tape: Tape, call: Call) -> None:
    """A lookup makes the columns of its table."""
    _, weight = call.bind("input", "weight")
    if id(weight) not in tape.names:
        tape.stop(call, f"the table of {call.where} is computed")
        return
    tape.put(call.output, Value(spread(tape.made(weight, 1), call.output, -1), _nothing(call.output)))


def batch_norm(tape: Tape, call: Call) -> None:
    """Every channel by itself; its scale, shift and statistics are carried along."""
    x, mean, variance, weight, bias = call.bind("input", "running_mean", "running_var", "weight", "bias")
    _channelwise(tape, call, x, [mean, variance, weight, bias], known=mean is not None)
    if id(mean) in tape.names:
        tape.note_norm(x, mean)


def instance_norm(tape: Tape, call: Call) -> None:
    """Every channel by itself, by its own statistics."""
    x, mean, variance, weight, bias = call.bind("input", "running_mean", "running_var", "weight", "bias")
    _channelwise(tape, call, x, [mean, variance, weight, bias], known=False)


def prelu(tape: Tape, call: Call) -> None:
    """A slope for every channel, or one for all."""
    x, weight = call.bind("input", "weight")
    _channelwise(tape, call, x, [weight] if weight.numel() > 1 else [], known=True)


def attention(tape: Tape, call: Call) -> None:
    """Heads are units: rows of the three projections make them, columns of the output's read them."""
    names = ("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias")
    query, key, value, width, heads, weight, bias, bias_k, _, add_zero, _, out, out_bias = call.bind(
        *names, "bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias"
    )
    for source in (query, key, value):
        tape.labels.pin(tape.value(source).labels, f"it is the embedding of attention in {call.where}")
    if weight is None or bias_k is not None or add_zero or not _own(tape, weight, bias, out, out_bias):
        tape.stop(call, f"attention in {call.where} has projections of its own shape, or biases of keys and values")
        return
    units = _heads(tape, weight, heads)
    tape.axis(bias, 0, "carries", units.repeat(3))
    tape.axis(out, 1, "reads", units)
    tape.reads_constants(out, _constant_heads(weight, bias, width))
    result = call.output[0]
    rows = make(tape, out, 0, out_bias)
    tape.labels.pin(rows, f"it is the embedding of attention in {call.where}")
    tape.put(result, Value(spread(rows, result, -1), _nothing(result)))
    if call.output[1] is not None:
        tape.put(call.output[1], fixed(call.output[1]))


def _heads(tape: Tape, weight: Tensor, heads: int) -> Tensor:
    """Return the unit of each of the embedding's entries: its head."""
    made = tape.made(weight, 0)
    width = len(made) // 3
    by_head = made.view(3, heads, width // heads).movedim(1, 0).reshape(heads, -1)
    units = tape.labels.merge_along(by_head, [1])
    return units.repeat_interleave(width // heads)


def _constant_heads(weight: Tensor, bias: Tensor | None, width: int) -> Tensor:
    """Return what attention makes of values that do not depend on the input: its weights add up to 1."""
    dead = ~(weight[2 * width :] != 0).any(1)
    values = weight.new_zeros(width) if bias is None else bias[2 * width :]
    return torch.where(dead, values, NAN)


def read(tape: Tape, weight: Tensor, dim: int, value: Value, axis: int, *, foldable: bool) -> None:
    """Say that a dimension of a weight reads the units along an axis of an activation.

    Args:
        tape: what is known so far.
        weight: a parameter.
        dim: of the weight.
        value: of the activation.
        axis: of the activation.
        foldable: whether any constant may be folded into a bias; else only 0, which adds nothing.
    """
    others = [d for d in range(value.labels.ndim) if d != axis % value.labels.ndim]
    tape.axis(weight, dim, "reads", tape.labels.merge_along(value.labels, others))
    flat = value.constant.movedim(axis, 0).flatten(1)
    same = flat.amin(1) == flat.amax(1) if flat.shape[1] else torch.zeros(len(flat), dtype=torch.bool)
    constants = torch.where(same, flat[:, 0] if flat.shape[1] else NAN, NAN)
    tape.reads_constants(weight, constants if foldable else torch.where(constants == 0, constants, NAN))


def make(tape: Tape, weight: Tensor, dim: int, bias: Tensor | None) -> Tensor:
    """Return the units that a dimension of a weight makes, the bias going with them."""
    units = tape.made(weight, dim)
    tape.axis(bias, 0, "carries", units)
    return units


def spread(units: Tensor, output: Tensor, axis: int) -> Tensor:
    """Return the labels of an activation whose units run along one axis."""
    shape = [1] * output.ndim
    shape[axis] = len(units)
    return units.view(shape).expand(output.shape)


def _own(tape: Tape, *tensors: Tensor | None) -> bool:
    return all(tensor is None or id(tensor) in tape.names for tensor in tensors)


def _nothing(output: Tensor) -> Tensor:
    return torch.full_like(output, NAN)


def _grouped(tape: Tape, weight: Tensor, value: Value, axis: int, groups: int) -> Tensor:
    """Merge the inputs of every group; return the unit of each filter, that of its group."""
    others = [d for d in range(value.labels.ndim) if d != axis % value.labels.ndim]
    columns = tape.labels.merge_along(value.labels, others)
    units = tape.labels.merge_along(columns.view(groups, -1), [1])
    return units.repeat_interleave(weight.shape[0] // groups)


def _weighted_constant(call: Call, constant: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return the outputs to which only constant inputs contribute, nan elsewhere."""
    unknown = constant.isnan()
    replaced = {id(x): constant.nan_to_num(0.0)}
    known = call.rerun(lambda t: replaced.get(id(t), t))
    reached = _reach(call, unknown.to(constant.dtype), x, weight)
    return torch.where(reached, NAN, known)


def _reach(call: Call, unknown: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return which outputs an unknown input reaches by a weight that is not zero."""
    positive = (weight != 0).to(weight.dtype)
    replaced: dict[int, Any] = {id(x): unknown, id(weight): positive}
    bias = call.bind("input", "weight", "bias")[2]
    if bias is not None:
        replaced[id(bias)] = torch.zeros_like(bias)
    return call.rerun(lambda t: replaced.get(id(t), t)) > 0


def _channelwise(tape: Tape, call: Call, x: Tensor, state: list[Tensor | None], *, known: bool) -> None:
    if not tape.is_active(x) or not _own(tape, *state):
        tape.stop(call, f"the parameters of {call.where} are computed, or its input is constant")
        return
    value = tape.value(x)
    axis = 1 if x.ndim > 1 else 0
    channels = tape.labels.merge_along(value.labels, [d for d in range(x.ndim) if d != axis])
    for tensor in state:
        tape.axis(tensor, 0, "carries", channels)
    tape.put(call.output, Value(value.labels, masked(call, x, value.constant) if known else _nothing(call.output)))


def masked(call: Call, x: Tensor, constant: Tensor) -> Tensor:
    """Return what an elementwise function makes of constants, nan where they are not known."""
    result = call.rerun(lambda t: constant.clone() if t is x else t)
    return torch.where(constant.isnan(), NAN, result)


WEIGHTED: dict[str, Callable[[Tape, Call], None]] = {
    "linear": linear,
    "matmul": matmul,
    "rmatmul": matmul,
    "bmm": matmul,
    "scaled_dot_product_attention": attend,
    "embedding": embedding,
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "prelu": prelu,
    "multi_head_attention_forward": attention,
    **{f"conv{n}d": convolution(n) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": transposed_convolution(n) for n in (1, 2, 3)},
}
