"""Run one quantiser on one model: `python -P launch.py SCRIPT SOURCE OUT --settings JSON [--calibration FILE]`.

Needs Python alone. What it tells whoever started it are lines of standard output::

    superweight-progress 3/30 layers
    superweight-failed {"reason": "missing-package", "package": "torchao", "message": "…"}

Everything else on either stream is the tool's own talk.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRESS, FAILED = "superweight-progress", "superweight-failed"
_OF_THE_TOKENIZER = (
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


class UnsupportedError(Exception):
    """Not with this device, these versions or this model; says what is needed."""


@dataclass(frozen=True)
class Job:
    """What is asked of a quantiser.

    Attributes:
        source: directory of the uncompressed model, Hugging Face layout.
        out: an empty directory, to be filled.
        settings: the card's.
        calibration: a file with windows of token ids; None if the tool looks at no text.
        device: `cpu` or `cuda`.
    """

    source: Path
    out: Path
    settings: dict[str, Any]
    calibration: Path | None
    device: str

    def progress(self, done: int, planned: int, what: str) -> None:
        """Say how far it is."""
        _tell(f"{PROGRESS} {done}/{planned} {what}")

    def counted(self, items: Any, what: str) -> Iterator[Any]:
        """The items one by one, each told of when it is done."""
        planned = len(items)
        for done, item in enumerate(items):
            self.progress(done, planned, what)
            yield item
        self.progress(planned, planned, what)

    def windows(self) -> list[list[int]]:
        """Token ids of the calibration text, windows of one length."""
        if self.calibration is None:
            raise UnsupportedError("this tool calibrates on text, and none was given")
        found: list[list[int]] = json.loads(self.calibration.read_text(encoding="utf-8"))
        return found

    def unsupported(self, need: str) -> UnsupportedError:
        """The error for what cannot run here."""
        return UnsupportedError(need)

    def copy_tokenizer(self) -> None:
        """Put the reference's tokenizer and generation settings beside the weights, byte for byte."""
        for pattern in _OF_THE_TOKENIZER:
            for path in self.source.glob(pattern):
                if path.is_file():
                    shutil.copyfile(path, self.out / path.name)


def _tell(line: str) -> None:
    """Write a line of its own, whatever the tool has left unfinished on the terminal."""
    sys.stdout.flush()
    os.write(1, f"\n{line}\n".encode())


def _fail(reason: str, message: str, package: str = "") -> int:
    _tell(f"{FAILED} {json.dumps({'reason': reason, 'message': message, 'package': package})}")
    return 1


def _run(script: Path, job: Job) -> int:
    try:
        _load(script).quantise(job)
    except UnsupportedError as error:
        return _fail("unsupported", str(error))
    except ImportError as error:
        traceback.print_exc()
        return _fail("missing-package", str(error), package=error.name or "")
    except Exception as error:
        traceback.print_exc()
        return _fail(_reason(error), f"{type(error).__name__}: {error}")
    return 0


def _reason(error: BaseException) -> str:
    """The kind of failure: memory, the disk, or the tool's own."""
    link: BaseException | None = error
    while link is not None:
        text = str(link)
        if isinstance(link, MemoryError) or "OutOfMemory" in type(link).__name__ or "allocate memory" in text:
            return "out-of-memory"
        if getattr(link, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in text:
            return "disk-full"
        link = link.__cause__ or link.__context__
    return "crash"


def _load(script: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"superweight_tool_{script.stem}", script)
    if spec is None or spec.loader is None:
        raise UnsupportedError(f"{script} is no Python script")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _die_with_parent() -> None:
    """End this process and its children once whoever started it is gone, and its end of standard input with it."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.killpg(0, signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    """Run the script that the arguments name."""
    parser = argparse.ArgumentParser(description="run one quantiser on one model")
    for name in ("script", "source", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON")
    parser.add_argument("--calibration", type=Path, help="JSON: windows of token ids")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--attended", action="store_true", help="end when standard input does")
    asked = parser.parse_args()
    if asked.attended:
        _die_with_parent()
    asked.out.mkdir(parents=True, exist_ok=True)
    return _run(asked.script, Job(asked.source, asked.out, asked.settings, asked.calibration, asked.device))


if __name__ == "__main__":
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [
        place for place in sys.path if str(Path(place or ".").resolve()) != here
    ]  # scripts have tools' names
    sys.exit(main())
