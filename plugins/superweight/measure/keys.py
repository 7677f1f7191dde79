"""What a figure depends on besides the model and the recipe: code, libraries, machine, and switches of arithmetic."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

import torch

import superweight
from superweight.measure.arithmetic import arithmetic_switches
from superweight.measure.environment import device_class, versions

NOT_IN_FIGURES = (
    "cards",  # what they say of a recipe, text or task is in the key itself
    "evidence",  # keeps figures and does not make them
    "statistics",  # tests them
    "verdict",  # judges them
    "runs",  # compares them
    "report",  # shows them
    "gate",  # asks for them
    "cli",
    "errors.py",
    "fetch.py",
    "gc_pause.py",  # when Python looks for garbage
    "starter.py",  # what a new project begins with
    "ids.py",  # what things are called
    "tiers.py",  # likewise
    "progress.py",  # what a watcher is told
    "__init__.py",  # the version, which is in the key
)
"""Packages and modules of this library that no figure depends on; whatever is not listed here is part of every key."""

IN_FIGURES = ("cards/methods",)
"""Packages inside those that figures do depend on: what a kind of recipe says of itself decides how it is applied."""

_SETTINGS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "chat_template*",
    "generation_config.json",
)
_ALSO = ("accelerate", "numpy", "tokenizers")  # versions in the key, beside those that reports show


@cache
def code_version() -> str:
    """sha256 over the source of every package that figures may depend on: figures of other code are never reused."""
    return source_digest(Path(superweight.__file__).parent, NOT_IN_FIGURES, IN_FIGURES)


def source_digest(root: Path, without: Collection[str] = (), all_the_same: Collection[str] = ()) -> str:
    """sha256 over the Python source below a directory.

    Args:
        root: the directory.
        without: names of packages and modules in it that are left out.
        all_the_same: packages inside those, as `package/inner`, that are not.
    """
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        below = path.relative_to(root)
        if below.parts[0] not in without or any(below.is_relative_to(inner) for inner in all_the_same):
            digest.update(f"{below}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def environment_key(device: torch.device) -> dict[str, object]:
    """The parts of every key that do not depend on the model: device class, threads, libraries, code, switches."""
    threads = torch.get_num_threads() if device.type == "cpu" else None  # sums are split by them
    return {
        "device_class": device_class(device),
        "threads": threads,
        "versions": _versions(),
        "code": code_version(),
        "switches": arithmetic_switches(),
    }


def _versions() -> dict[str, str]:
    """Versions of every library under a figure; of one that is worked on where it lies, its source too."""
    found = {**versions(), "python": ".".join(platform.python_version_tuple()[:2])}
    for name in _ALSO:
        found |= {name: one.version} if (one := _distribution(name)) is not None else {}
    edited = {f"{name}, source": editable_source(name) for name in found if name != "pytest-superweight"}
    return found | {name: source for name, source in edited.items() if source}


@cache
def editable_source(package: str) -> str:
    """sha256 over the Python source of a package that is installed in place; empty if it is a copy, or not there."""
    found = _distribution(package)
    where = None if found is None else _editable(found)
    return "" if where is None else source_digest(where)


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _editable(found: Distribution) -> Path | None:
    """The directory of a package that was installed in place (PEP 610)."""
    told = json.loads(found.read_text("direct_url.json") or "{}")
    if not told.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(told["url"]).path))


def settings_files(directory: Path) -> dict[str, str]:
    """sha256 of every file of a checkpoint that says how text becomes tokens, and how text is generated, by name."""
    files = [path for path in directory.iterdir() if path.is_file()] if directory.is_dir() else []
    chosen = sorted(path for path in files if any(fnmatch(path.name, pattern) for pattern in _SETTINGS))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in chosen}
