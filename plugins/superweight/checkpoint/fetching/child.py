"""Run a program as a child: its lines go to a log and to whoever listens, and it never outlives who started it."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_BREAKS = re.compile(rb"[\r\n]")  # bars are drawn over and over, with a carriage return between
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LONGEST = 1 << 16  # bytes of a line; what is longer is cut into lines
_CHUNK = 1 << 16  # bytes read at a time
_LOOK = 0.5  # seconds between two looks at whether the program has ended

Listen = Callable[[str], None]


def run_child(command: Sequence[str], *, log: Path, environ: Mapping[str, str], listen: Listen = lambda _: None) -> int:
    """Run a program to its end, with nothing to read but the end of its standard input when this process is gone.

    Whatever ends this call early, a KeyboardInterrupt or an error of `listen`, ends the program and its children.

    Args:
        command: the program and its arguments.
        log: gets everything that the program writes, on both streams.
        environ: its environment variables.
        listen: told every line, without its ending and its colours, as it comes.

    Returns:
        its exit code; negative, the signal that killed it.

    Raises:
        OSError: the program cannot be started, or the log cannot be written.
    """
    with log.open("wb") as kept, _started(command, environ) as process:
        assert process.stdout is not None
        for line in _lines(process, process.stdout, kept):
            listen(line)
        return process.wait()


@contextmanager
def _started(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a group of its own, which is killed when the block ends."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environ),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.wait()


def _lines(process: subprocess.Popen[bytes], stream: IO[bytes], kept: IO[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in _chunks(process, stream):
        kept.write(chunk)
        kept.flush()
        *whole, rest = _BREAKS.split(rest + chunk)
        if len(rest) > _LONGEST:
            whole, rest = [*whole, rest], b""
        yield from filter(None, map(_plain, whole))
    if last := _plain(rest):
        yield last


def _chunks(process: subprocess.Popen[bytes], stream: IO[bytes]) -> Iterator[bytes]:
    """What the program writes, until it has ended: a child of its own that holds the pipe open is not waited for."""
    while True:
        ended = process.poll() is not None  # before the look, so that nothing written until then is lost
        ready, _, _ = select.select([stream], [], [], 0 if ended else _LOOK)
        chunk = os.read(stream.fileno(), _CHUNK) if ready else b""
        if chunk:
            yield chunk
        elif ready or ended:
            return


def _plain(line: bytes) -> str:
    return _COLOURS.sub("", line.decode("utf-8", errors="replace")).strip()
