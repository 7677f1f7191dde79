"""Causal attention of long windows on a CPU, by blocks of queries.

torch's own kernel computes its products piece by piece in a library that is slow on many processors. Here a block of
queries meets all keys it may see in one product of oneDNN, and keys that several heads share meet them all at once.
Scores, softmax and sums are float32 whatever the inputs are, as in torch's kernel, and the keys that lie ahead of a
whole block are never multiplied.
"""

from __future__ import annotations

import math

import torch

_QUERIES = 128  # of a block, and of each head: its scores against thousands of keys stay in cache
WORTHWHILE = 256
"""Tokens a window from which this is faster than torch's kernel."""


def causal_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float | None = None
) -> torch.Tensor:
    """Softmax attention in which a token sees itself and what precedes it.

    Args:
        query: `(batch, heads, length, width)`, float32 or bfloat16.
        key: `(batch, groups, length, width)` of the same dtype; `heads` is a multiple of `groups`, and so many
            neighbouring heads share one.
        value: `(batch, groups, length, anything)` of the same dtype.
        scale: of the scores; 1 / √width if not given.

    Returns:
        `(batch, heads, length, anything)` in the dtype of `query`.
    """
    batch, heads, length, width = query.shape
    shared = heads // key.shape[1]
    scale = 1 / math.sqrt(width) if scale is None else scale
    out = query.new_empty(batch, heads, length, value.shape[-1])
    ahead = torch.full((_QUERIES, _QUERIES), -math.inf).triu_(1)
    for number in range(batch):
        for group in range(key.shape[1]):
            mine = slice(group * shared, (group + 1) * shared)
            keys, values = key[number, group].float().contiguous(), _right(value[number, group])
            for start in range(0, length, _QUERIES):
                end = min(length, start + _QUERIES)
                some = query[number, mine, start:end].float().mul(scale).reshape(-1, width)
                scores = _linear(some, keys[:end]).view(shared, end - start, end)
                scores[:, :, start:] += ahead[: end - start, : end - start]
                weights = torch.softmax(scores, -1).view(-1, end)
                out[number, mine, start:end] = _summed(weights, values, end).view(shared, end - start, -1)
    return out


def suits(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether `causal_attention` takes these, and is worth its while."""
    four = query.dim() == key.dim() == value.dim() == 4
    if not four or query.shape[2] < WORTHWHILE or query.shape[2] != key.shape[2]:
        return False
    return key.shape[1] > 0 and query.shape[1] % key.shape[1] == 0 and key.shape[:3] == value.shape[:3]


def _right(values: torch.Tensor) -> torch.Tensor:
    """Values as the right side of their product: oneDNN wants float32 ones transposed."""
    return values.t() if values.dtype == torch.float32 else values


def _summed(weights: torch.Tensor, values: torch.Tensor, end: int) -> torch.Tensor:
    if values.dtype == torch.float32:
        return _linear(weights, values[:, :end].contiguous())
    return torch.mm(weights.to(values.dtype), values[:end])


def _linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return product
