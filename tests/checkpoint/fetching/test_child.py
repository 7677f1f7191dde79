"""Children: their lines are heard as they come, kept, and nothing of them outlives the call."""

import os
import sys
import time

import pytest

from superweight.checkpoint.fetching.child import run_child


def run(tmp_path, code, listen=lambda _: None):
    return run_child([sys.executable, "-c", code], log=tmp_path / "log", environ=os.environ, listen=listen)


def test_lines_of_both_streams_in_order_without_colours(tmp_path):
    heard = []
    code = (
        "import sys\n"
        "print('one', flush=True); print('\\x1b[1;31mtwo\\x1b[0m\\rthree', file=sys.stderr, flush=True)\n"
        "sys.stdout.buffer.write(b'f\\xffour\\n\\n'); sys.stdout.write('five')"
    )
    assert run(tmp_path, code, heard.append) == 0
    assert heard == ["one", "two", "three", "f\N{REPLACEMENT CHARACTER}our", "five"]
    assert (tmp_path / "log").read_bytes().startswith(b"one\n\x1b[1;31mtwo")


def test_exit_codes_and_signals(tmp_path):
    assert run(tmp_path, "raise SystemExit(3)") == 3
    assert run(tmp_path, "import os; os.kill(os.getpid(), 15)") == -15


def test_a_line_without_end_is_cut(tmp_path):
    heard = []
    assert run(tmp_path, "print('x' * 1_000_000)", heard.append) == 0
    assert sum(map(len, heard)) == 1_000_000
    assert len(heard) > 1


def test_nothing_can_be_read_but_the_end(tmp_path):
    """A tool that asks a question waits for nobody for ever: it is ended with whoever started it."""
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, "print('?', flush=True); input()", lambda _: 1 // 0)
    assert time.monotonic() - started < 30


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(OSError, match="no-such-program"):
        run_child(["no-such-program"], log=tmp_path / "log", environ=os.environ)
