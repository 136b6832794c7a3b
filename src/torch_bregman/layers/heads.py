"""Attention with fewer heads than its embedding is wide."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, scaled_dot_product_attention


class HeadAttention(nn.Module):
    """`nn.MultiheadAttention` with some of its heads: embed_dim need not be heads·head_dim.

    Takes and returns what `nn.MultiheadAttention` does. Attention weights, where they are asked for, are those of the
    heads that are there, and their mean that over them.

    Args:
        embed_dim: length of queries, keys, values and outputs.
        heads: number of heads.
        head_dim: length of a head.
        dropout: of attention weights in training, default 0.
        bias: of the input projections; out_bias: of the output's, default as `bias`.
        batch_first: whether inputs are (batch, length, embed_dim), default False.
        device, dtype: of the weights.

    Example:
        >>> attention = HeadAttention(8, heads=3, head_dim=2, batch_first=True)
        >>> x = torch.randn(2, 5, 8)
        >>> attention(x, x, x)[0].shape
        torch.Size([2, 5, 8])
    """

    in_proj_bias: nn.Parameter | None
    _qkv_same_embed_dim = False  # keeps the fused path of nn.TransformerEncoderLayer away

    def __init__(
        self,
        embed_dim: int,
        heads: int,
        head_dim: int,
        dropout: float = 0.0,
        bias: bool = True,
        batch_first: bool = False,
        out_bias: bool | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, heads, head_dim
        self.dropout, self.batch_first = dropout, batch_first
        width, place = heads * head_dim, {"device": device, "dtype": dtype}
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, embed_dim, **place))
        self.register_parameter("in_proj_bias", nn.Parameter(torch.zeros(3 * width, **place)) if bias else None)
        self.out_proj = nn.Linear(width, embed_dim, bias if out_bias is None else out_bias, **place)
        nn.init.xavier_uniform_(self.in_proj_weight)

    @classmethod
    def from_attention(cls, attention: nn.MultiheadAttention) -> HeadAttention:
        """Return attention with the weights of a module whose projections have lost rows and columns of whole heads."""
        weight, out = attention.in_proj_weight, attention.out_proj
        assert weight is not None
        heads = weight.shape[0] // (3 * attention.head_dim)
        width, rate = attention.embed_dim, attention.dropout
        made = cls(width, heads, attention.head_dim, rate, False, attention.batch_first, device="meta")
        made.in_proj_weight, made.in_proj_bias = weight, attention.in_proj_bias
        made.out_proj.weight = out.weight
        made.out_proj.bias = out.bias
        return made.train(attention.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output, and the attention weights or None.

        Args:
            query: (length, batch, embed_dim), (batch, length, embed_dim) with batch_first, or (length, embed_dim).
            key: alike, of another length maybe.
            value: as long as the key.
            key_padding_mask: (batch, length of key), true or −∞ where a key counts for nothing.
            need_weights: whether to return attention weights, which takes a slower path.
            attn_mask: (length, length of key), true or −∞ where a query must not look.
            average_attn_weights: the mean over the heads, else all of them.
            is_causal: a hint; the mask says it all.

        Raises:
            ValueError: for a mask with a part for every head, some of which are gone.
        """
        batched, flip = query.ndim == 3, query.ndim == 3 and not self.batch_first
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
        elif flip:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._project(query, key, value)
        mask = self._mask(attn_mask, key_padding_mask, q)
        if need_weights:
            result, weights = self._weigh(q, k, v, mask)
        else:
            rate = self.dropout if self.training else 0.0
            result, weights = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate), None
        result = self.out_proj(result.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return result.squeeze(0), None if weights is None else weights.squeeze(0)
        return result.transpose(0, 1) if flip else result, weights

    def _project(self, *sources: Tensor) -> list[Tensor]:
        weights = self.in_proj_weight.chunk(3)
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        projected = [linear(x, w, b) for x, w, b in zip(sources, weights, biases, strict=True)]
        return [x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for x in projected]

    def _mask(self, attn_mask: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
        if attn_mask is not None and attn_mask.ndim == 3:
            raise ValueError(
                "a mask with a part for every head does not fit attention that has lost heads: pass (L, S)"
            )
        masks = [] if attn_mask is None else [_additive(attn_mask, q)]
        if padding is not None:
            masks.append(_additive(padding if padding.ndim == 2 else padding.unsqueeze(0), q)[:, None, None, :])
        return sum(masks[1:], masks[0]) if masks else None

    def _weigh(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        scores = (q / math.sqrt(self.head_dim)) @ k.mT
        weights = torch.softmax(scores if mask is None else scores + mask, -1)
        return dropout(weights, self.dropout, self.training) @ v, weights


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, -math.inf)
