"""Text that can be seen, and files that are files."""

import os

import pytest

from superweight.errors import CardError, InfraError
from superweight.plain_files import read_plain, read_plain_text
from superweight.plain_text import briefly, one_line, unseen, visible


def test_what_cannot_be_seen_is_escaped_and_the_rest_stays():
    assert visible("né 名 💥\n\ttwo") == "né 名 💥\n\ttwo"
    assert visible("\x1b[31m\r\0\u202e\ud800\u2028") == "\\x1b[31m\\r\\x00\\u202e\\ud800\\u2028"


@pytest.mark.parametrize(
    "text", ["\x1b", "\0", "\r", "\x7f", "\x85", "\u2028", "\u202e", "\u2066", "\u200b", "\ufeff", "\ud800"]
)
def test_what_nobody_writes_is_named(text):
    assert unseen(f"a{text}b").startswith(f"U+{ord(text):04X}")


@pytest.mark.parametrize("text", ["", "two\nlines\t", "名", "a\u00a0b", "👩\u200d💻", "می\u200cخواهم"])
def test_scripts_with_joiners_are_text(text):
    assert unseen(text) == ""


def test_anothers_error_is_one_line_with_an_end():
    assert briefly(ValueError("two\n  lines")) == "ValueError: two lines"
    assert briefly(KeyError("x" * 9000)) == "KeyError: '" + "x" * 489 + "…"  # 500 characters and the mark


def test_every_message_can_be_seen():
    assert str(CardError("a\x1b[2Jb")) == "a\\x1b[2Jb"
    assert str(InfraError("a\u202eb", reason="corrupt")) == "a\\u202eb"


def test_a_file_is_read_and_a_link_to_one_is(tmp_path):
    (tmp_path / "file").write_bytes(b"\x00\xff")
    (tmp_path / "link").symlink_to("file")
    assert read_plain(tmp_path / "link") == b"\x00\xff"


def test_a_pipe_and_a_device_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", type(tmp_path)("/dev/zero")):
        with pytest.raises(OSError, match="is a pipe or a device"):
            read_plain(path)


def test_what_is_not_there_is_told_by_name(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path, tmp_path / "none"):
        with pytest.raises(OSError, match=str(path)) as caught:
            read_plain(path)
        assert caught.value.strerror


def test_text_keeps_its_line_ends_and_zeros(tmp_path):
    (tmp_path / "x").write_bytes(b"\xc3\xa9\r\n\x00")
    assert read_plain_text(tmp_path / "x") == "é\r\n\0"


def test_a_message_is_one_line_that_moves_no_cursor_and_turns_no_text():
    assert one_line("a  b\n c\r\nd\te") == "a  b c d\\te"
    assert one_line("x\x1b[31m\0\x85") == "x\\x1b[31m\\x00"
    assert one_line("\u202egnp.exe\ud800 é名💥") == "\\u202egnp.exe\\ud800 é名💥"
