"""What the sections of `gpu.py` are given and what they hand back."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from measuring import table


@dataclass(frozen=True)
class Setting:
    """Where and how large.

    Attributes:
        device: `cpu` or `cuda`.
        small: sizes that a CPU does in seconds.
        model: a directory with a checkpoint and its tokenizer, or None.
        ceilings: `copy` in bytes a second, `bf16` and `int8` in operations a second, measured on the device.
    """

    device: str
    small: bool
    model: Path | None
    ceilings: dict[str, float]

    @property
    def dtype(self) -> torch.dtype:
        """What a model is run in: bfloat16, and float32 where everything is small."""
        return torch.float32 if self.small else torch.bfloat16


@dataclass
class Findings:
    """What one section found.

    Attributes:
        tables: Markdown.
        figures: the same and more, JSON-ready.
        checks: a sentence, and whether it holds.
    """

    tables: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, bool] = field(default_factory=dict)

    def add_table(self, rows: list[dict[str, Any]]) -> None:
        """A table of rows that have the same keys."""
        if rows:
            self.tables.append(table(list(rows[0]), [list(row.values()) for row in rows]))
