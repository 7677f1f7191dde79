"""What a figure depends on besides the model and the recipe: the code that measures, and the libraries under it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import torch

import superweight
from superweight.measure.environment import device_class, versions

_MEASURING = ("checkpoint", "detect", "compress", "evaluate", "measure")


@cache
def code_version() -> str:
    """sha256 over the source of every package that figures depend on: figures of other code are never reused."""
    root = Path(superweight.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for package in _MEASURING for path in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def basis(device: torch.device) -> dict[str, object]:
    """The parts of every key that do not depend on the model: device class, threads, library versions, code."""
    threads = torch.get_num_threads() if device.type == "cpu" else None  # sums are split by them
    return {"device_class": device_class(device), "threads": threads, "versions": versions(), "code": code_version()}
