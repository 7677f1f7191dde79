"""All that a user's task can reach: its YAML, its Python and what that imports, as far as it can be known."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from uuid import uuid4

from superweight.evaluate.yaml_text import yaml_files

_FUNCTION = re.compile(r"!function\s+['\"]?([\w.]+)")
_CHANGING_MODULES = frozenset(
    {"random", "secrets", "time", "uuid", "subprocess", "socket", "urllib", "http", "requests", "httpx", "aiohttp"}
    | {"importlib", "pickle", "shelve", "sqlite3", "glob", "tempfile", "ctypes", "runpy"}
)
_CHANGING_NAMES = frozenset(
    {"open", "exec", "eval", "compile", "input", "__import__", "getenv", "environ", "load_dataset", "urlopen"}
)
_CHANGING_ATTRIBUTES = frozenset(
    {"environ", "getenv", "read_text", "read_bytes", "open", "listdir", "scandir", "iterdir", "walk", "popen", "system"}
    | {"now", "today", "utcnow", "load_dataset", "random", "urlopen", "import_module"}
)

_READERS = re.compile(
    r"read_\w+|load(txt|_\w+)?|scan_\w+|genfromtxt|memmap|from_?(file|csv|json|parquet|pickle|pretrained)\w*"
    r"|\w+_download"
)
"""Names by which packages read files (pandas' read_csv, numpy's load, from_pretrained); `loads` reads text at hand."""

_THIS_PROCESS = uuid4().hex


@dataclass
class TaskSources:
    """What a task's figures depend on besides rows and requests.

    Attributes:
        parts: file or package → sha256 of its content, or version.
        unknowable: why it cannot be known what else they depend on; empty if all is known.
    """

    parts: dict[str, str] = field(default_factory=dict)
    unknowable: str = ""

    @property
    def content(self) -> list[tuple[str, str]]:
        """What goes into a key: the same wherever the files lie, and no other run's if not all can be known."""
        known = sorted((Path(name).name, value) for name, value in self.parts.items())
        return [*known, *([("this process", _THIS_PROCESS)] if self.unknowable else [])]


def task_sources(path: Path) -> TaskSources:
    """Follow a task from its YAML file through everything that it names and that its Python imports.

    The standard library is covered by Python's version and installed packages by theirs; every other file by its
    content. Python that reads files, the environment, a clock, a network or random numbers may give another score
    tomorrow, and imports made at run time cannot be followed: `unknowable` then says which line does.

    Args:
        path: the task's YAML file.

    Raises:
        CardError: it, or a file that it includes, cannot be read or is no YAML.
    """
    found = TaskSources()
    for file in yaml_files(path.resolve()):
        text = file.read_text(encoding="utf-8", errors="replace")
        found.parts[str(file)] = _sha256(file)
        for name in _FUNCTION.findall(text):
            module = file.parent / f"{name.rpartition('.')[0].replace('.', '/')}.py"
            if module.is_file():
                _follow(module, found)
            else:
                _note(found, f"{file.name} names {name}, which is no file beside it")
    return found


def _follow(file: Path, found: TaskSources) -> None:
    """Take in a Python file and all that it imports."""
    if str(file) in found.parts:
        return
    found.parts[str(file)] = _sha256(file)
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        _note(found, f"{file.name} cannot be read as Python ({error})")
        return
    for node in ast.walk(tree):
        if what := _changing(node):
            _note(found, f"{file.name} line {getattr(node, 'lineno', 0)} uses {what}")
        for name, level in _imported(node):
            _import(name, level, file, found)


def _imported(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Modules that a statement imports, and how many packages up they are looked for."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, 0) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        stem = node.module or ""
        yield stem, node.level
        if node.level:  # `from . import helpers`: what is imported may be a module
            yield from ((f"{stem}.{alias.name}".lstrip("."), node.level) for alias in node.names)


def _import(name: str, level: int, file: Path, found: TaskSources) -> None:
    top = name.partition(".")[0]
    beside = file.parents[max(0, level - 1)]
    near = [beside / f"{name.replace('.', '/')}.py", beside / name.replace(".", "/") / "__init__.py"]
    near += [beside / f"{top}.py", beside / top / "__init__.py"]
    for module in near:
        if name and module.is_file():
            _follow(module.resolve(), found)
    if level or not top or top in sys.stdlib_module_names or any(module.is_file() for module in near):
        return
    if packages := _distributions().get(top):
        found.parts |= {package: version(package) for package in packages}
        return
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        _note(found, f"{file.name} imports {name}, whose source is not at hand")
        return
    origin = Path(spec.origin).resolve()
    for module in sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]:
        _follow(module, found)


def _changing(node: ast.AST) -> str:
    """What in a statement or expression may give something else tomorrow; empty if nothing does."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        taken = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        found = [name for name in modules if name.partition(".")[0] in _CHANGING_MODULES]
        return next(iter([*found, *(name for name in taken if _READERS.fullmatch(name))]), "")
    if isinstance(node, ast.Name) and node.id in _CHANGING_NAMES:
        return node.id
    if isinstance(node, ast.Attribute) and (node.attr in _CHANGING_ATTRIBUTES or _READERS.fullmatch(node.attr)):
        return node.attr
    return ""


def _note(found: TaskSources, why: str) -> None:
    found.unknowable = found.unknowable or why


@cache
def _distributions() -> dict[str, list[str]]:
    return {name: list(packages) for name, packages in packages_distributions().items()}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
