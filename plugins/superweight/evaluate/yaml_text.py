"""A task's YAML as it is written: what its readers pass over in silence, such as a key given twice, is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from superweight.errors import CardError
from superweight.plain_files import read_plain
from superweight.plain_text import unseen

_SHOWN = 300  # characters of what the reader says


def check_yaml(path: Path) -> None:
    """Read a task's YAML and all that it includes, for what a reader of it would take another way than its writer.

    Raises:
        CardError: a file cannot be read or is no YAML; a key is given twice in one mapping, so that one value would
            win; a text holds characters that cannot be seen; a file of Python that it names is no file.
    """
    for file, root in _files(path):
        for line, problem in _problems(root, file.parent, set()):
            raise CardError(f"{file}: line {line}: {problem}")


def yaml_files(path: Path) -> list[Path]:
    """A task's YAML file and all that it includes, one name or a list of them, and what those include.

    Raises:
        CardError: a file cannot be read or is no YAML.
    """
    return [file for file, _ in _files(path)]


def _files(path: Path) -> Iterator[tuple[Path, Any]]:
    """Each file, once, with its nodes."""
    waiting, seen = [path], set()
    while waiting:
        file = waiting.pop(0)
        if (place := file.resolve()) in seen:
            continue
        seen.add(place)
        root = _composed(file, "" if file == path else f", which is included by {path}")
        yield file, root
        waiting += [file.parent / name for name in _included(root)]


def _composed(file: Path, why: str) -> Any:
    """The nodes of a file; by the reader that is written in Python, which nesting without end does not crash."""
    try:
        return yaml.compose(read_plain(file), Loader=yaml.SafeLoader)
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or error
        raise CardError(f"{file}{why}: cannot be read ({found}). Expected a task in YAML.") from error
    except (yaml.YAMLError, RecursionError) as error:
        told = " ".join(str(error).split())[:_SHOWN]
        raise CardError(f"{file}{why}: not a task that lm-eval can read: {told}") from error


def _problems(node: Any, folder: Path, done: set[int]) -> Iterator[tuple[int, str]]:
    """Line and description of everything in a tree of nodes that is taken in silence."""
    if node is None or id(node) in done:
        return
    done.add(id(node))
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        if hidden := unseen(node.value):
            yield line, f"holds {hidden}, which a reader cannot see; write it without"
        if node.tag == "!function":
            yield from ((line, problem) for problem in _python(node.value, folder))
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _problems(each, folder, done)
    elif isinstance(node, yaml.MappingNode):
        keys: set[tuple[str, str]] = set()
        for key, value in node.value:
            name = (key.tag, str(key.value))
            if name in keys:
                yield key.start_mark.line + 1, f"the key '{key.value}' is given twice; keep one of them"
            keys.add(name)
            yield from _problems(key, folder, done)
            yield from _problems(value, folder, done)


def _python(name: str, folder: Path) -> Iterator[str]:
    module = folder / f"{name.rpartition('.')[0].replace('.', '/')}.py"
    if module.exists() and not module.is_file():
        yield f"{module} is no file of Python"


def _included(root: Any) -> list[str]:
    """Files that a task names under `include`."""
    if not isinstance(root, yaml.MappingNode):
        return []
    values = [value for key, value in root.value if key.value == "include"]
    nodes = [one for value in values for one in (value.value if isinstance(value, yaml.SequenceNode) else [value])]
    return [node.value for node in nodes if isinstance(node, yaml.ScalarNode)]
