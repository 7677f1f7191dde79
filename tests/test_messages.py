"""Directories that cannot be used, from the command line: one line a person can act on, and no traceback."""

import errno
import os

import pytest

from superweight.checkpoint import Cache
from superweight.checkpoint.fetching.problems import disk_errors
from superweight.cli import main
from superweight.errors import InfraError

MODEL = "smollm2-135m-instruct"


@pytest.fixture
def said(capsys):
    """`said(*arguments)`: exit code and what stands on standard error."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, capsys.readouterr().err

    return run


def one_line(text):
    return text.count("\n") == 1 and text.startswith("superweight: ") and "Traceback" not in text


@pytest.mark.parametrize("blocked", [".", "locks", "wheels"])
def test_a_cache_with_a_file_where_a_directory_belongs(said, tmp_path, monkeypatch, blocked):
    place = tmp_path / "cache"
    if blocked != ".":
        place.mkdir()
    (place / blocked if blocked != "." else place).write_text("not ours")
    monkeypatch.setenv("SUPERWEIGHT_CACHE", str(place))
    code, text = said("detect", MODEL)
    assert code == 2
    assert one_line(text), text
    assert str(place) in text
    assert "set SUPERWEIGHT_CACHE" in text
    assert (place / blocked if blocked != "." else place).read_text() == "not ours"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR])
def test_a_cache_that_may_not_be_written_is_named(tmp_path, monkeypatch, number):
    def refuse(self, *_, **__):
        raise OSError(number, os.strerror(number), str(self))

    cache = Cache(tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.mkdir", refuse)
        with pytest.raises(InfraError, match="the cache cannot be used") as caught, cache.lock("x"):
            pass
    assert str(cache.root) in str(caught.value)
    assert os.strerror(number) in str(caught.value)


def test_trouble_elsewhere_is_not_blamed_on_the_cache(tmp_path):
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path / "cache", "reading"):
        (tmp_path / "source" / "missing").read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ("detect", "{file}"),
        ("detect", "{file}.gguf"),
        ("detect", "{empty}"),
        ("report", "{file}"),
        ("report", "{missing}"),
        ("export", "{missing}", "-o", "x.csv"),
        ("index", "{file}"),
        ("compare", "{file}", "{missing}"),
        ("baseline", "{empty}"),
        ("--cards", "{missing}", "cards"),
        ("--cards", "{file}", "cards"),
    ],
    ids=" ".join,
)
def test_paths_that_are_not_what_they_should_be(said, tmp_path, arguments):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    places = {name: tmp_path / name for name in ("file", "empty", "missing")}
    code, text = said(*(argument.format(**places) for argument in arguments))
    assert code == 2
    assert one_line(text), text
    assert str(tmp_path) in text


def test_what_nobody_foresaw_is_a_line_and_a_traceback_on_demand(said, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("half\nof it")

    monkeypatch.setattr("superweight.cli.models.library", broken)
    code, text = said("cards")
    assert (code, text) == (2, "superweight: ZeroDivisionError: half of it (--traceback shows where)\n")
    with pytest.raises(ZeroDivisionError):
        main(["--traceback", "cards"])


def test_a_disk_that_fails_is_a_line(said, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/mnt/x")

    monkeypatch.setattr("superweight.cli.models.library", broken)
    assert said("cards") == (2, f"superweight: /mnt/x: {os.strerror(errno.EIO)}\n")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("model.safetensors", "model.safetensors"),
        ("naïve 名 💥\nsecond line", "naïve 名 💥\nsecond line"),
        ("a\x1b[31m\0\r\tb", "a\\x1b[31m\\x00\\r\tb"),
        ("evil\u202egnp.exe\ufeff\ud800", "evil\\u202egnp.exe\\ufeff\\ud800"),
    ],
)
def test_messages_hold_nothing_that_turns_text_around(given, shown):
    """By hand: escapes as Python writes them."""
    assert str(InfraError(given, reason="crash")) == shown
