"""The provenance of a run: when, by which command, from which commit and on which machine it was made."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superweight.evidence import CellEvidence


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Provenance:
    """Where a run comes from, as its report says.

    Attributes:
        started: ISO 8601, UTC; expiries of gate cards and waivers are compared with this day.
        command: the command line.
        expression: what selected the tests, empty for all.
        commit: of the project that is gated.
        environment: versions of what schedules the cells, by name.
    """

    started: str = field(default_factory=now)
    command: str = ""
    expression: str = ""
    commit: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def commit_of(directory: Path) -> str:
    """The commit that is checked out in a directory, shortened; what a CI system says, where git cannot tell."""
    try:
        command = ["git", "-C", str(directory), "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("CI_COMMIT_SHA", os.environ.get("GITHUB_SHA", ""))


def environment_of(evidence: Iterable[CellEvidence], scheduler: Mapping[str, str]) -> dict[str, str]:
    """Machine, device and library versions of a run.

    Args:
        evidence: every cell, each with the environment that it was measured in.
        scheduler: versions of what scheduled the cells.

    """
    found = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **scheduler,
        "cpus": str(os.cpu_count()),
    }
    for cell in evidence:
        found.update(cell.checkpoint.get("environment", {}))
    return found | {"executable": sys.implementation.name}
