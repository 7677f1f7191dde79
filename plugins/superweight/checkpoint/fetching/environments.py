"""Environments: a Python of its own for tools that cannot live beside the gate's versions, made from pinned files.

A file in `fixtures/environments/` says what is in one: a pin a line, and comments that begin with a word::

    # about: what it is for
    # first: packages that others are built against, and that are there before those
    # imports: modules that must be importable in the end

One that is made lies in the cache under `environments/`, by name and by the hash of its file. It counts as made once
its record is in it, which is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from superweight.cards.load import builtin_cards
from superweight.checkpoint.fetching.cache import Cache
from superweight.checkpoint.fetching.child import run_child
from superweight.checkpoint.fetching.problems import disk_errors
from superweight.errors import InfraError, InfraReason

RECORD = "superweight-environment.json"
_TOLD = ("Building", "Collecting", "Downloading", "Installing", "Prepar", "Resolved", "Using CPython")
_PINS_OF_OTHERS = ("PIP_CONSTRAINT", "PIP_REQUIREMENT", "UV_CONSTRAINT", "UV_OVERRIDE")
_OF_THIS_PYTHON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "__PYVENV_LAUNCHER__")
_OFFLINE = re.compile(
    r"name resolution|failed to establish a new connection|network is unreachable|dns error|connection refused"
    r"|could not resolve|failed to fetch|connection timed out|max retries exceeded",
    re.IGNORECASE,
)
_LAST = 6  # lines of a log that an error quotes

Say = Callable[[str], None]


@dataclass(frozen=True)
class EnvironmentFile:
    """What an environment is made from.

    Attributes:
        name: `gptq`.
        path: the file.
        about: what it is for.
        first: packages that are there before others are built; if there are any, others are built against them.
        imports: modules that must be importable.
    """

    name: str
    path: Path
    about: str
    first: tuple[str, ...]
    imports: tuple[str, ...]

    @property
    def digest(self) -> str:
        """sha256 of the file, 64 hexadecimal digits."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Environment:
    """An environment that is made.

    Attributes:
        directory: where it lies.
        record: its name, the hash of its file, its Python's version and its packages by name, lower case.
    """

    directory: Path
    record: Mapping[str, Any]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return _python(self.directory)

    @property
    def packages(self) -> Mapping[str, str]:
        """Versions by name, in lower case with `-`."""
        found: dict[str, str] = self.record["packages"]
        return found


def environment_files() -> dict[str, EnvironmentFile]:
    """Every environment that can be made, by name."""
    folder = builtin_cards() / "environments"
    return {path.stem: _read(path) for path in sorted(folder.glob("*.txt"))}


def environment_file(name: str) -> EnvironmentFile:
    """One of them.

    Raises:
        InfraError: there is none of that name (`not-found`).
    """
    known = environment_files()
    if name not in known:
        raise InfraError(f"there is no environment '{name}'. Known: {', '.join(known)}", reason="not-found")
    return known[name]


def made_environment(name: str, cache: Cache) -> Environment | None:
    """An environment, if it is made, from the file as it is now."""
    return _made(_place(environment_file(name), cache))


def needed_environment(name: str, cache: Cache, need: str) -> Environment:
    """An environment that must be there.

    Args:
        name: its name.
        cache: where environments are kept.
        need: what needs it, as the start of a sentence.

    Raises:
        InfraError: it is not made (`missing-package`), or there is none of that name.
    """
    found = made_environment(name, cache)
    if found is None:
        raise InfraError(
            f"{need} runs in the environment '{name}', which is not made here. Make it: superweight env make {name}",
            reason="missing-package",
        )
    return found


def make_environment(name: str, cache: Cache, say: Say, *, installer: str | None = None) -> Environment:
    """Make an environment, unless it is made.

    Args:
        name: which.
        cache: where environments are kept.
        say: told what is done, a line at a time.
        installer: `uv` or `pip`; uv where there is one if not given.

    Raises:
        InfraError: it cannot be made; what was begun is removed, and the log kept.
    """
    file = environment_file(name)
    place = _place(file, cache)
    with cache.lock(f"environment {name}"):
        if (found := _made(place)) is not None:
            say(f"{name} is made: {place}")
            return found
        with disk_errors(cache.root, f"making the environment {name}"):
            place.parent.mkdir(parents=True, exist_ok=True)
            _clear(place)
            try:
                return _make(file, place, say, installer or ("uv" if shutil.which("uv") else "pip"))
            except BaseException:
                _clear(place)
                raise


def remove_environment(name: str, cache: Cache) -> list[Path]:
    """Remove an environment, and those of older files of its name.

    Returns:
        what was removed.
    """
    with cache.lock(f"environment {name}"):
        found = [path for path in _lying_there(cache) if path.name.rpartition("-")[0] == name]
        for path in found:
            _clear(path)
            path.with_suffix(".log").unlink(missing_ok=True)
        return found


def lying_there(cache: Cache) -> list[Environment]:
    """Every environment that was made, from files of today and of before."""
    return [found for path in _lying_there(cache) if (found := _made(path)) is not None]


def isolated(environ: Mapping[str, str]) -> dict[str, str]:
    """Environment variables without those that would bring this Python's packages into another one."""
    return {name: value for name, value in environ.items() if name not in _OF_THIS_PYTHON}


def last_lines(log: Path, count: int = _LAST) -> str:
    """The end of a log, for an error."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")]
    return "\n".join([line for line in lines if line][-count:])


def _read(path: Path) -> EnvironmentFile:
    said: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"# (about|first|imports): (.+)", line.strip()):
            said[found[1]] = found[2]
    first, imports = (tuple(said.get(word, "").split()) for word in ("first", "imports"))
    return EnvironmentFile(path.stem, path, said.get("about", ""), first, imports)


def _place(file: EnvironmentFile, cache: Cache) -> Path:
    return cache.path("environments", f"{file.name}-{file.digest[:16]}")


def _lying_there(cache: Cache) -> list[Path]:
    folder = cache.path("environments")
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _made(place: Path) -> Environment | None:
    with suppress(OSError, ValueError):
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
        if isinstance(record, dict) and isinstance(record.get("packages"), dict) and _python(place).exists():
            return Environment(place, record)
    return None


def _python(place: Path) -> Path:
    return place / "bin" / "python"


def _clear(place: Path) -> None:
    """Remove a directory; its record first, so that half of it is never taken for the whole."""
    (place / RECORD).unlink(missing_ok=True)
    shutil.rmtree(place, ignore_errors=True)


def _make(file: EnvironmentFile, place: Path, say: Say, installer: str) -> Environment:
    steps = _steps(file, place, installer)
    for number, (what, command) in enumerate(steps, 1):
        say(f"{number}/{len(steps)} {what}")
        _step(file, what, command, place.with_suffix(".log"), say)
    record = {"name": file.name, "file": file.digest, "python": platform.python_version(), "packages": _versions(place)}
    temporary = place / f".{RECORD}"
    temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
    temporary.replace(place / RECORD)
    say(f"{file.name} is made: {place}")
    return Environment(place, record)


def _steps(file: EnvironmentFile, place: Path, installer: str) -> list[tuple[str, list[str]]]:
    """What is run, in order."""
    python = str(_python(place))
    if installer == "uv":
        create = ["uv", "venv", "--python", sys.executable, str(place)]
        install, check = ["uv", "pip", "install", "--python", python], ["uv", "pip", "check", "--python", python]
    else:
        create = [sys.executable, "-m", "venv", str(place)]
        install = [python, "-m", "pip", "install", "--progress-bar", "off", "--disable-pip-version-check"]
        check = [python, "-m", "pip", "check", "--disable-pip-version-check"]
    unisolated = ["--no-build-isolation"] if file.first else []
    return [
        ("an empty environment", create),
        *([("what others are built against", [*install, "-c", str(file.path), *file.first])] if file.first else []),
        ("packages", [*install, *unisolated, "-r", str(file.path)]),
        ("whether they fit together", check),
        ("whether they can be imported", [python, "-P", "-s", "-c", _importing(file.imports)]),
    ]


def _importing(modules: Sequence[str]) -> str:
    return "; ".join(["import importlib", *(f"importlib.import_module({module!r})" for module in modules)])


def _step(file: EnvironmentFile, what: str, command: list[str], log: Path, say: Say) -> None:
    environ = {name: value for name, value in isolated(os.environ).items() if name not in _PINS_OF_OTHERS}

    def listen(line: str) -> None:
        if line.startswith(_TOLD):
            say(f"    {line.partition(' (')[0][:100]}")

    code = run_child(command, log=log, environ=environ, listen=listen)
    if code:
        end = last_lines(log)
        raise InfraError(
            f"the environment '{file.name}' cannot be made: {what} failed with exit code {code}, of "
            f"{' '.join(command[:5])} …. The whole of it: {log}. Its end:\n{end}",
            reason=_why(log),
        )


def _why(log: Path) -> InfraReason:
    text = log.read_text(encoding="utf-8", errors="replace")
    if "No space left on device" in text:
        return "disk-full"
    if _OFFLINE.search(text):
        return "offline"
    return "not-found" if "No matching distribution" in text else "crash"


def _versions(place: Path) -> dict[str, str]:
    """Packages of an environment by name, read from what installers leave."""
    from importlib.metadata import distributions

    folders = [str(path) for path in (place / "lib").glob("python*/site-packages")]
    found = {_normal(one.metadata["Name"]): one.version for one in distributions(path=folders)}
    return dict(sorted(found.items()))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
