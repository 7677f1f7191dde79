"""Have somebody else's quantiser write a compressed model, once: kept by what it was made from, with what, and how.

Under `quantised/` of the cache lie, for every key, a directory with the tool's files and nothing else, the tool's log
and a record of what it was made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from superweight.cards.methods import Quantiser
from superweight.checkpoint import Cache, Checkpoint
from superweight.checkpoint.fetching.environments import Environment, isolated, needed_environment
from superweight.checkpoint.fetching.problems import disk_errors
from superweight.errors import InfraError
from superweight.evidence import content_key
from superweight.forward.runner import Progress
from superweight.measure.keys import settings_files
from superweight.measure.reference import Reference
from superweight.measure.tool_process import run_tool

_LAUNCHER = ("superweight.compress.third_party", "launch.py")
_WEIGHTS = ("*.safetensors", "*.gguf", "*.bin", "*.onnx", "*.pt")


def quantised_directory(reference: Reference, method: Quantiser) -> Path:
    """The directory of a model's compressed files, made by the recipe's tool unless it was made before.

    Raises:
        InfraError: the tool or its environment is not there (`missing-package`); it cannot do this here
            (`unsupported`); it fails, runs out of memory or of disk, or writes no weights.
    """
    text = reference.calibration(*method.calibration).tolist() if method.calibration else None
    stage = f"quantise:{method.tool}"
    return quantise(
        reference.checkpoint,
        method,
        reference.cache,
        windows=text,
        device=reference.loaded.device.type,
        progress=lambda done, planned: reference.step(stage, done, planned),
    )


def made_with(directory: Path) -> dict[str, Any]:
    """With which versions a directory of `quantised_directory` was made, and in how many seconds; read, not measured.

    Returns:
        `tool`, `versions` and `seconds`, as they were written down; empty if the record is gone.
    """
    with suppress(OSError, ValueError):
        record = json.loads(directory.with_suffix(".json").read_text(encoding="utf-8"))
        return {name: record[name] for name in ("tool", "versions", "seconds") if name in record}
    return {}


def quantise(
    source: Checkpoint,
    method: Quantiser,
    cache: Cache,
    *,
    windows: list[list[int]] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """As `quantised_directory`, of files alone.

    Args:
        source: the uncompressed model.
        method: the recipe's.
        cache: where compressed models are kept.
        windows: token ids of the calibration text, if the recipe names one.
        device: `cpu` or `cuda`.
        progress: told how far the tool says it is.
    """
    work = _Work(source, method, cache, windows, device)
    with cache.lock(f"quantised {work.key}"), disk_errors(cache.root, f"quantising with {method.tool}"):
        if not work.is_done:
            work.clear()
            work.run(progress or (lambda done, planned: None))
        return work.target


@dataclass(frozen=True)
class _Work:
    """One model, one tool, one set of settings."""

    source: Checkpoint
    method: Quantiser
    cache: Cache
    windows: list[list[int]] | None
    device: str

    @cached_property
    def environment(self) -> Environment | None:
        """The environment that the tool runs in; None for this Python."""
        if not self.method.place:
            return None
        return needed_environment(self.method.place, self.cache, f"tool '{self.method.tool}'")

    @cached_property
    def parts(self) -> dict[str, Any]:
        """Everything that the files depend on."""
        return {
            "source": self.source.content_hash,
            "settings_files": settings_files(self.source.directory),
            "tool": self.method.tool,
            "settings": self.method.settings.model_dump(mode="json"),
            "versions": self._versions(),
            "calibration": None if self.windows is None else _digest(json.dumps(self.windows).encode()),
            "script": _digest(self._launcher.read_bytes(), self._script.read_bytes()),
            "device": self.device,
        }

    @cached_property
    def key(self) -> str:
        """sha256 of the parts, 64 hexadecimal digits."""
        return content_key(**self.parts)

    @property
    def target(self) -> Path:
        """Where the tool's files lie once they are whole."""
        return self.cache.path("quantised", self.key)

    @property
    def log(self) -> Path:
        """What the tool said."""
        return self.target.with_suffix(".log")

    @property
    def record(self) -> Path:
        """What the files were made from, how long that took, and how large each is."""
        return self.target.with_suffix(".json")

    @property
    def is_done(self) -> bool:
        """Whether the files are there, each as large as when they were made."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            return bool(json.loads(self.record.read_text(encoding="utf-8"))["files"] == _sizes(self.target))
        return False

    def clear(self) -> None:
        """Remove what an earlier attempt, or somebody's hand, has left."""
        self.record.unlink(missing_ok=True)
        for path in (self.target, self._beside):
            shutil.rmtree(path, ignore_errors=True)

    def run(self, progress: Progress) -> None:
        """Run the tool, and put its files in their place once they are whole."""
        started = time.perf_counter()
        try:
            with self.cache.publish_directory(self.target) as out:
                self._beside.mkdir()
                run_tool(self._command(out), self._environ(), self.log, self.method, progress)
                self._check(out)
                self._write_record(out, time.perf_counter() - started)
        finally:
            shutil.rmtree(self._beside, ignore_errors=True)

    @property
    def _beside(self) -> Path:
        """A directory for the calibration text and for what the tool puts aside."""
        return self.target.with_name(f".{self.key[:12]}.tmp")  # short: sockets in it have at most 108 characters

    @property
    def _launcher(self) -> Path:
        return _resource(*_LAUNCHER)

    @property
    def _script(self) -> Path:
        return _resource(*self.method.facts.script.split(":"))

    def _versions(self) -> dict[str, str]:
        """Versions of the packages that the result depends on.

        Raises:
            InfraError: one is not installed (`missing-package`).
        """
        if self.environment is not None:
            return {**self.environment.packages, "python": str(self.environment.record["python"])}
        facts = self.method.facts
        try:
            return {name: version(name) for name in facts.packages}
        except PackageNotFoundError as error:
            raise InfraError(
                f"tool '{self.method.tool}' needs the Python package {error.name or error}, which is not installed. "
                f"Install it: pip install 'pytest-superweight[{facts.extra}]'",
                reason="missing-package",
            ) from error

    def _command(self, out: Path) -> list[str]:
        python = sys.executable if self.environment is None else str(self.environment.python)
        settings = json.dumps(self.method.settings.model_dump(mode="json"))
        text: list[str] = []
        if self.windows is not None:
            (self._beside / "calibration.json").write_text(json.dumps(self.windows), encoding="utf-8")
            text = ["--calibration", str(self._beside / "calibration.json")]
        paths = [str(path) for path in (self._launcher, self._script, self.source.directory, out)]
        return [python, "-P", "-s", *paths, "--settings", settings, "--device", self.device, "--attended", *text]

    def _environ(self) -> dict[str, str]:
        """The tool's environment variables: no hub, no telemetry, its share of the cores, a place of its own."""
        given = dict(os.environ) if self.environment is None else isolated(os.environ)
        quiet = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
        return {
            **given,
            **dict.fromkeys((*quiet, "DO_NOT_TRACK", "NNCF_CI"), "1"),
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
            "TMPDIR": str(self._beside),
            "PYTHONUNBUFFERED": "1",
            **({"CUDA_VISIBLE_DEVICES": ""} if self.device == "cpu" else {}),
        }

    def _check(self, out: Path) -> None:
        if not any(path.stat().st_size for pattern in _WEIGHTS for path in out.glob(pattern)):
            found = ", ".join(sorted(path.name for path in out.iterdir())) or "nothing"
            raise InfraError(
                f"tool '{self.method.tool}' ended well and wrote no weights, but {found}. Its log: {self.log}",
                reason="corrupt",
            )

    def _write_record(self, out: Path, seconds: float) -> None:
        files = _sizes(out)
        made = {"files": files, "bytes": sum(files.values()), "seconds": round(seconds, 1), **self.parts}
        with self.cache.publish_file(self.record) as path:
            path.write_text(json.dumps(made, indent=1), encoding="utf-8")


def _resource(package: str, file: str) -> Path:
    return Path(str(resources.files(package) / file))


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _sizes(directory: Path) -> Mapping[str, int]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.stat().st_size for path in files}
