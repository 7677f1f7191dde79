"""Messages for a terminal."""

from superweight.errors import printable


def test_a_message_is_one_line_that_moves_no_cursor_and_turns_no_text():
    assert printable("a  b\n c\r\nd\te") == "a  b c d\\te"
    assert printable("x\x1b[31m\0\x85") == "x\\x1b[31m\\x00"
    assert printable("\u202egnp.exe\ud800 é名💥") == "\\u202egnp.exe\\ud800 é名💥"
