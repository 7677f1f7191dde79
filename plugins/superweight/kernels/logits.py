"""What is read from logits over a whole vocabulary, `(n, vocabulary)` in float32, in few passes.

Log-probabilities are torch's own softmax over whole rows: its float32 sums over a large vocabulary are off, mostly to
the same side, and figures that are to agree with other programs' need the same error.
"""

from __future__ import annotations

import torch

_TOGETHER = 64  # logits of which the largest is found at once


class Workspace:
    """Float32 tensors to write into, the same memory each time.

    On a CPU, mapping fresh pages costs more than filling them; other devices' allocators keep pages themselves.
    """

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}

    def take(self, name: str, rows: int, columns: int, device: torch.device) -> torch.Tensor:
        """A tensor `(rows, columns)`; what was written under this name before is lost."""
        if device.type != "cpu":
            return torch.empty(rows, columns, dtype=torch.float32, device=device)
        known = self._kept.get(name)
        if known is None or known.numel() < rows * columns:
            with torch.inference_mode(False):  # usable in any mode
                known = self._kept[name] = torch.empty(rows * columns, dtype=torch.float32)
        return known[: rows * columns].view(rows, columns)


def log_probabilities_(logits: torch.Tensor) -> torch.Tensor:
    """Float32 logits as log-probabilities; on a CPU in their own memory, which is then read and written once."""
    return torch.log_softmax(logits, -1, out=logits if logits.device.type == "cpu" else None)


def divergence_(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of q from p, Σ p (log p − log q), of each row in nats; both tensors are lost.

    Args:
        log_p: float32 `(n, vocabulary)`, the reference's.
        log_q: of the same shape.

    Returns:
        float32 `(n,)`, infinite where either is NaN.
    """
    log_ratio = torch.sub(log_p, log_q, out=log_q)
    each = torch.linalg.vecdot(log_p.exp_(), log_ratio)
    return torch.where(each.isnan(), torch.inf, each.clamp(min=0))


def first_of_largest(values: torch.Tensor) -> torch.Tensor:
    """`values.argmax(-1)` of `(n, some)`, the first of equal ones, several times as fast on a CPU."""
    count = values.shape[-1]
    if count % _TOGETHER:
        return values.argmax(-1)
    groups = values.view(len(values), count // _TOGETHER, _TOGETHER)
    group = groups.amax(-1).argmax(-1)
    rows = torch.arange(len(values), device=values.device)
    return group * _TOGETHER + groups[rows, group].argmax(-1)
