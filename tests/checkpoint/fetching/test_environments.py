"""Environments of tools: made whole from a pinned file or not at all, found again, listed and removed."""

import os
import sys
import zipfile

import pytest

from superweight.checkpoint import Cache
from superweight.checkpoint.fetching import environments
from superweight.checkpoint.fetching.environments import (
    RECORD,
    environment_file,
    environment_files,
    made_environment,
    make_environment,
    needed_environment,
    remove_environment,
)
from superweight.cli import main
from superweight.errors import InfraError


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where files of environments lie; nothing that pip is configured with applies."""
    folder = tmp_path / "fixtures" / "environments"
    folder.mkdir(parents=True)
    monkeypatch.setattr(environments, "builtin_cards", lambda: folder.parent)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Environments without a pip of their own, filled by this Python's: a second instead of ten."""
    steps = environments._steps

    def quicker(file, place, installer):
        (what, create), *rest = steps(file, place, installer)
        python = str(place / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", python]
        others = [(said, [*pip, *command[3:]] if command[1:3] == ["-m", "pip"] else command) for said, command in rest]
        return [(what, [*create, "--without-pip"]), *others]

    monkeypatch.setattr(environments, "_steps", quicker)


def wheel(directory, name="tool", module="value = 1\n"):
    """A wheel of one module."""
    path = directory / f"{name}-1.2-py3-none-any.whl"
    about = f"{name}-1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", module)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


def write(folder, *lines, name="small"):
    (folder / f"{name}.txt").write_text("# about: small\n" + "".join(f"{line}\n" for line in lines))


def test_files_that_ship_say_what_they_are_for():
    files = environment_files()
    assert {"gptq", "onnx"} <= set(files)
    for file in files.values():
        assert file.about
        assert file.imports
        pins = [line for line in file.path.read_text().splitlines() if not line.startswith("#")]
        assert pins
        assert all("==" in pin and "/" not in pin and "+" not in pin for pin in pins), file.name
        named = {pin.partition("==")[0].lower() for pin in pins}
        assert set(file.first) <= named, "what is built against is pinned, too"


def test_an_environment_is_made_found_listed_and_removed(folder, tmp_path, cache, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # nobody else's packages
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "pins-of-the-gate.txt"))  # nobody else's pins
    write(folder, "# imports: tool json", f"tool @ {wheel(tmp_path).as_uri()}")
    said = []
    made = make_environment("small", cache, said.append, installer="pip")
    assert made.packages["tool"] == "1.2"
    assert made == made_environment("small", cache)
    assert made.python.exists()
    assert [line for line in said if line[0].isdigit()] == [
        "1/4 an empty environment",
        "2/4 packages",
        "3/4 whether they fit together",
        "4/4 whether they can be imported",
    ]
    assert said[-1] == f"small is made: {made.directory}"

    said.clear()
    assert make_environment("small", cache, said.append) == made
    assert said == [f"small is made: {made.directory}"]

    monkeypatch.setenv("SUPERWEIGHT_CACHE", str(cache.root))
    assert main(["env", "list"]) == 0
    assert "small    made      small" in capsys.readouterr().out
    write(folder, "# imports: tool", f"tool @ {wheel(tmp_path).as_uri()}")  # a newer file
    assert made_environment("small", cache) is None
    assert main(["env", "list"]) == 0
    listed = capsys.readouterr().out
    assert "small    not made  small" in listed
    assert f"small    outdated  {made.directory}" in listed

    assert main(["env", "remove", "small"]) == 0
    assert not made.directory.exists()
    assert main(["env", "remove", "small"]) == 1
    assert remove_environment("small", cache) == []


@pytest.mark.parametrize(
    ("lines", "environ", "reason", "words"),
    [
        (["nowhere==1.0"], {}, "not-found", "packages failed with exit code 1.*No matching distribution"),
        (
            ["nowhere==1.0"],
            {"PIP_NO_INDEX": "", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"},
            "offline",
            "packages failed",
        ),
        (["# imports: not_there", "tool @ {wheel}"], {}, "crash", "imported failed.*No module named 'not_there'"),
    ],
)
def test_what_cannot_be_made_leaves_a_log(folder, tmp_path, cache, monkeypatch, quick, lines, environ, reason, words):
    for name, value in environ.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    write(folder, *(line.format(wheel=wheel(tmp_path).as_uri()) for line in lines))
    with pytest.raises(InfraError, match=f"(?s)'small' cannot be made: .*{words}") as caught:
        make_environment("small", cache, lambda _: None, installer="pip")
    assert caught.value.reason == reason
    (log,) = cache.path("environments").iterdir()
    assert log.suffix == ".log"
    assert str(log) in str(caught.value)
    assert made_environment("small", cache) is None


def test_an_interrupt_leaves_nothing_that_looks_made(folder, tmp_path, cache, quick):
    write(folder, f"tool @ {wheel(tmp_path).as_uri()}")

    def interrupt(line):
        if line.startswith("3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_environment("small", cache, interrupt, installer="pip")
    assert [path.suffix for path in cache.path("environments").iterdir()] == [".log"]


def test_half_an_environment_is_none(folder, cache):
    """Killed before its record was written, or removed half-way."""
    write(folder)
    place = environments._place(environment_file("small"), cache)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    for text in (None, "", "[]", '{"packages": 1}'):
        if text is not None:
            (place / RECORD).write_text(text)
        assert made_environment("small", cache) is None
    with pytest.raises(InfraError, match=r"a test runs in the environment 'small'.*superweight env make small"):
        needed_environment("small", cache, "a test")


def test_uv_is_asked_the_same(folder, cache):
    write(folder, "# first: setuptools", "# imports: tool", "tool==1")
    file = environment_file("small")
    place = environments._place(file, cache)
    commands = [" ".join(command) for _, command in environments._steps(file, place, "uv")]
    python = place / "bin" / "python"
    assert commands[:4] == [
        f"uv venv --python {sys.executable} {place}",
        f"uv pip install --python {python} -c {file.path} setuptools",
        f"uv pip install --python {python} --no-build-isolation -r {file.path}",
        f"uv pip check --python {python}",
    ]
    assert commands[4].startswith(f"{python} ")


def test_a_name_that_is_none(folder, cache, capsys, monkeypatch):
    write(folder)
    monkeypatch.setenv("SUPERWEIGHT_CACHE", str(cache.root))
    assert main(["env", "make", "nowhere"]) == 2
    assert "there is no environment 'nowhere'. Known: small" in capsys.readouterr().err
