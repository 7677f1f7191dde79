"""Progress bars of everything that takes long: shown on a terminal, silent elsewhere."""

from __future__ import annotations

from typing import Any


def byte_bar(what: str, *, total: int | None, initial: int = 0, progress: bool = True) -> Any:
    """A tqdm bar that counts bytes.

    Args:
        what: the text before the bar.
        total: bytes in all, None if unknown.
        initial: bytes that are there already.
        progress: False hides it; True shows it where standard error is a terminal.
    """
    from tqdm import tqdm

    hide = None if progress else True  # None: tqdm looks whether it writes to a terminal
    return tqdm(desc=what, total=total, initial=initial, unit="B", unit_scale=True, unit_divisor=1024, disable=hide)


def step_bar(what: str, *, total: int, progress: bool = True) -> Any:
    """A tqdm bar that counts steps; see `byte_bar`."""
    from tqdm import tqdm

    return tqdm(desc=what, total=total, bar_format="{desc} {n}/{total} [{elapsed}]", disable=None if progress else True)
