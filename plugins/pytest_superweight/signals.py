"""What each process measures at the moment, told through a file each, so that one process can show it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superweight.progress import Step

PROGRESS_DIR_VARIABLE = "SUPERWEIGHT_PROGRESS"
"""Environment variable with the directory of these files; workers inherit it."""

_PAUSE = 0.1  # seconds between two of the same stage


def progress_writer(worker: str, directory: Path | None = None) -> Callable[[Step], None]:
    """What tells of each step, if anybody watches: in this directory, and in the one that the environment names."""
    directories = [
        directory,
        Path(os.environ[PROGRESS_DIR_VARIABLE]) if os.environ.get(PROGRESS_DIR_VARIABLE) else None,
    ]
    paths = [one / f"{worker}.json" for one in directories if one is not None]
    if not paths:
        return lambda _: None
    last: tuple[float, str] = (0.0, "")

    def tell(step: Step) -> None:
        nonlocal last
        now, about = time.monotonic(), f"{step.cell} {step.stage} {step.planned}"
        if about == last[1] and now - last[0] < _PAUSE:
            return
        last = (now, about)
        for path in paths:
            with suppress(OSError):  # nobody's figures depend on it
                fresh = path.with_suffix(".new")
                fresh.write_text(json.dumps(step._asdict()), encoding="utf-8")
                fresh.replace(path)

    return tell


def read_progress(directory: Path) -> dict[str, Step]:
    """The last step of each process."""
    from superweight.progress import Step

    found = {}
    for path in sorted(directory.glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            found[path.stem] = Step(**json.loads(path.read_text(encoding="utf-8")))
    return found
