"""Run the process of a quantiser: hear how far it is, and say of a failure what it was and what to do."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from superweight.cards.methods import Quantiser
from superweight.checkpoint.fetching.child import run_child
from superweight.checkpoint.fetching.environments import last_lines
from superweight.errors import InfraError, InfraReason
from superweight.forward.runner import Progress

_PROGRESS = re.compile(r"superweight-progress (\d+)/(\d+)\b")
_BAR = re.compile(r"\| *(\d+)/(\d+) \[|\[(\d+)/(\d+)\]")  # as tqdm and gptqmodel draw theirs
_FAILED = re.compile(r"superweight-failed (\{.*\})")
_REASONS: Mapping[str, InfraReason] = {
    "missing-package": "missing-package",
    "unsupported": "unsupported",
    "disk-full": "disk-full",
}


def run_tool(
    command: Sequence[str], environ: Mapping[str, str], log: Path, method: Quantiser, progress: Progress
) -> None:
    """Run a tool to its end.

    Args:
        command: `launch.py` and its arguments.
        environ: environment variables.
        log: gets all that the tool says.
        method: the recipe's, for messages.
        progress: told what the tool reports, or else what its bars show.

    Raises:
        InfraError: it failed, or was killed.
    """
    heard = _Heard(progress)
    code = run_child(command, log=log, environ=environ, listen=heard)
    if code or heard.failure:
        raise _failure(method, log, code, heard.failure)


class _Heard:
    """What a tool has told."""

    def __init__(self, progress: Progress) -> None:
        self.failure: dict[str, Any] = {}
        self._progress = progress
        self._reports = False

    def __call__(self, line: str) -> None:
        if found := _FAILED.match(line):
            self.failure = json.loads(found[1])
        elif found := _PROGRESS.match(line):
            self._reports = True
            self._progress(int(found[1]), int(found[2]))
        elif not self._reports and (found := _BAR.search(line)):
            done, planned = (number for number in found.groups() if number is not None)
            self._progress(int(done), int(planned))


def _failure(method: Quantiser, log: Path, code: int, told: Mapping[str, Any]) -> InfraError:
    what, message = told.get("reason", ""), str(told.get("message", ""))
    if not told:
        message, what = _killed(code, log), "killed"
    return InfraError(
        f"tool '{method.tool}': {message}. {_advice(method, what, told)}Its log: {log}",
        reason=_REASONS.get(what, "crash"),
    )


def _killed(code: int, log: Path) -> str:
    """What is known of a process that ended without a word of its own."""
    end = last_lines(log, 3)
    if code == -signal.SIGKILL:
        return f"was killed, as by a machine that ran out of memory; it last said: {end}"
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"{how}; it last said: {end}"


def _advice(method: Quantiser, what: str, told: Mapping[str, Any]) -> str:
    if what == "missing-package":
        package = told.get("package") or "a package"
        if method.place:
            return (
                f"The environment '{method.place}' lacks {package}: superweight env remove {method.place}, then "
                f"superweight env make {method.place}. "
            )
        return f"It lacks {package}: pip install 'pytest-superweight[{method.facts.extra}]'. "
    if what in ("out-of-memory", "killed"):
        return "Close what else runs, take a machine with more memory, or a tool that reads layer by layer. "
    return ""
