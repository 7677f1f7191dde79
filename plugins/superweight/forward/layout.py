"""One batch of rows as tensors: which token stands where, what it may see, and where each target is predicted.

The attention mask lets a token see the stem, the row's shared beginning and its own branch, and position ids count as
if each branch stood alone, so each branch gets the numbers it would get on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from superweight.forward.packing import Row


@dataclass
class Layout:
    """One batch as tensors, and where in it each target is predicted.

    Attributes:
        input_ids: `(rows, length)`, padded by repeating each row's last token.
        position_ids: `(rows, length)`.
        branch: `(rows, length)`; 0 in the shared part, 1… in the branches, −1 in the padding.
        stem: tokens that stand before every row, in a cache.
        longest: target tokens of the request that has most.
        at: for each target, its row and column.
        targets: token ids.
        owners: for each target, the index of its request.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    branch: torch.Tensor
    stem: int = 0
    longest: int = 0
    at: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    targets: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)

    @property
    def branching(self) -> bool:
        """Whether any row holds more than one request."""
        return bool((self.branch > 0).any())

    def visible(self) -> torch.Tensor:
        """Which token sees which, boolean `(rows, 1, length, stem + length)`: what precedes it in its branch."""
        length = self.branch.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        same_branch = self.branch[:, :, None] == self.branch[:, None, :]
        row = causal & (same_branch | (self.branch == 0)[:, None, :])
        return torch.nn.functional.pad(row, (self.stem, 0), value=True)[:, None]

    def inputs(self, device: torch.device, attention: str) -> dict[str, Any]:
        """What the body is called with besides `input_ids` and a cache: nothing unless rows branch."""
        if not self.branching:
            return {}
        mask = self.visible().to(device)
        if attention != "sdpa":  # eager, and whatever is built on it, adds the mask
            mask = torch.zeros(mask.shape, device=device).masked_fill(~mask, torch.finfo(torch.float32).min)
        return {"attention_mask": mask, "position_ids": self.position_ids.to(device)}


def lay_out(batch: Sequence[Row]) -> Layout:
    """Lay rows of one stem out as tensors."""
    length = max(row.length for row in batch)
    layout = Layout(
        input_ids=torch.zeros(len(batch), length, dtype=torch.long),
        position_ids=torch.zeros(len(batch), length, dtype=torch.long),
        branch=torch.full((len(batch), length), -1, dtype=torch.long),
        stem=batch[0].stem,
        longest=max(row.targets for row in batch),
    )
    for number, row in enumerate(batch):
        _lay_out_row(layout, number, row)
    return layout


def _lay_out_row(layout: Layout, number: int, row: Row) -> None:
    tokens = list(row.requests[0].inputs[row.stem : row.shared])
    positions, branch = list(range(row.stem, row.shared)), [0] * len(tokens)
    for which, request in enumerate(row.requests, start=1):
        offset = len(tokens) - row.shared  # a position p ≥ shared of this request stands in column p + offset
        tokens += request.inputs[row.shared :]
        positions += range(row.shared, len(request.inputs))
        branch += [which] * (len(request.inputs) - row.shared)
        for target in range(request.start, len(request.tokens)):
            column = target - 1 - row.stem if target - 1 < row.shared else target - 1 + offset
            layout.at[0].append(number)
            layout.at[1].append(column)
            layout.targets.append(request.tokens[target])
            layout.owners.append(request.index)
    padding = layout.input_ids.shape[1] - len(tokens)
    layout.input_ids[number] = torch.tensor(tokens + [tokens[-1]] * padding)
    layout.position_ids[number] = torch.tensor(positions + [positions[-1]] * padding)
    layout.branch[number, : len(branch)] = torch.tensor(branch)
