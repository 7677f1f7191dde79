"""What happens to files between those who write and those who read them, drawn by hypothesis: seeded and shrunk.

A damage is a function of a directory; its name and its arguments are in its representation, so that a failing example
can be read.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NASTY = (
    "\0",
    "\x1b[31m",
    "\r",
    "\n",
    "\t",
    "\u202e",
    "\ufeff",
    "\ud800",
    "é",
    "名",
    "💥",
    "../",
    "..",
    "/",
    "\\",
    '"',
    "'",
    "{{",
    "%s",
    "-1",
    "1e999",
    "NaN",
    "null",
    "a" * 5000,
)
"""What people and programs put where it was not expected."""

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 2**31, 2**63, 2**70, 0.0, -0.0, 1e308, 1e-320, float("nan"), float("inf"), "",
    " ", "x", "0", "é\u202e\x1b[31m", "../../etc/passwd", "a" * 5000, [], [[]], [0], {}, {"": ""}, {"a": {"b": [1]}},
)  # fmt: skip

_numbers = itertools.count()


@dataclass(frozen=True)
class Damage:
    """One change to a directory."""

    name: str
    arguments: tuple[Any, ...]
    change: Callable[[Path], None]

    def __call__(self, directory: Path) -> None:
        self.change(directory)

    def __repr__(self) -> str:
        return f"{self.name}{self.arguments!r}"[:300]


def budget(examples: int) -> Callable[[Any], Any]:
    """Settings of a fuzzer: the same examples in every run, no deadline, files in `tmp_path` that it makes itself."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
        print_blob=False,
    )


def every_damage(
    damages: st.SearchStrategy[Damage], examples: int, pristine: Path, place: Path, check: Callable[[Path], object]
) -> None:
    """Copy a directory, damage the copy, and check it; so many times."""

    @budget(examples)
    @given(damages)
    def run(damage: Damage) -> None:
        directory = shutil.copytree(pristine, place / str(next(_numbers)))
        try:
            damage(directory)
            check(directory)
        finally:
            shutil.rmtree(directory)

    run()


@st.composite
def byte_damage(draw: st.DrawFn, names: Sequence[str]) -> Damage:
    """A change to the bytes of one file: cut, flipped bits, swapped, doubled or zeroed pieces, something put between."""
    name = draw(st.sampled_from(names))
    at, length = draw(st.floats(0, 1)), draw(st.integers(1, 64))
    what = draw(st.sampled_from(("cut", "flip", "swap", "double", "zero", "insert", "drop", "empty", "append")))
    bit = draw(st.integers(0, 7))
    nasty = draw(st.sampled_from(NASTY)).encode("utf-8", "surrogatepass")

    def change(directory: Path) -> None:
        path = directory / name
        content = bytearray(path.read_bytes())
        place = min(int(at * len(content)), max(0, len(content) - 1))
        piece = content[place : place + length]
        if what == "cut":
            del content[place:]
        elif what == "flip" and content:
            content[place] ^= 1 << bit
        elif what == "swap":
            other = len(content) - place - len(piece)
            content[place : place + length], content[other : other + len(piece)] = (
                content[other : other + len(piece)],
                piece,
            )
        elif what == "double":
            content[place:place] = piece
        elif what == "zero":
            content[place : place + length] = bytes(len(piece))
        elif what == "insert":
            content[place:place] = nasty
        elif what == "drop":
            del content[place : place + length]
        elif what == "empty":
            content.clear()
        elif what == "append":
            content += nasty * (1 + bit)
        path.write_bytes(content)

    return Damage(f"bytes:{what}", (name, at, length, bit, nasty), change)


@st.composite
def tree_damage(draw: st.DrawFn, names: Sequence[str]) -> Damage:
    """A change to the names in a directory: gone, renamed, a directory, a link to itself, to nowhere or to another."""
    name, other = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    last = Path(name).name
    renamed = (f"{last}.bak", f".{last}", f"{last} (1)", last.upper(), f"{last}\u202e", f"x{last}")
    new = str(Path(name).with_name(draw(st.sampled_from(renamed))))
    what = draw(
        st.sampled_from(("delete", "rename", "directory", "loop", "dangle", "link", "copy", "exchange", "fifo"))
    )

    def change(directory: Path) -> None:
        path, second = directory / name, directory / other
        if what == "copy":
            shutil.copy(path, directory / new)
        elif what == "exchange":
            content = path.read_bytes()
            path.write_bytes(second.read_bytes())
            second.write_bytes(content)
        elif what == "rename":
            path.rename(directory / new)
        else:
            content = path.read_bytes()
            path.unlink()
            if what == "directory":
                path.mkdir()
                (path / "x").write_bytes(content)
            elif what == "loop":
                path.symlink_to(path.name)
            elif what == "dangle":
                path.symlink_to("../" * 3 + "nowhere")
            elif what == "link":
                path.with_name("elsewhere").write_bytes(content)
                path.symlink_to("elsewhere")
            elif what == "fifo":
                os.mkfifo(path)

    return Damage(f"tree:{what}", (name, other, new), change)


@st.composite
def json_damage(draw: st.DrawFn, names: Sequence[str]) -> Damage:
    """A change to a JSON file that stays JSON: a value replaced, a key renamed, dropped, doubled, or a new one."""
    name, pick, pair = draw(st.sampled_from(names)), draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6))
    what = draw(st.sampled_from(("value", "value", "rename", "drop", "double", "new", "exchange", "wrap")))
    value, nasty = draw(st.sampled_from(VALUES)), draw(st.sampled_from(NASTY))

    def change(directory: Path) -> None:
        path = directory / name
        document = json.loads(path.read_text(encoding="utf-8"))
        places = list(_places(document))
        if not places:
            return
        parent, key = places[pick % len(places)]
        second, another = places[pair % len(places)]
        if what == "value":
            parent[key] = value
        elif what == "exchange":
            parent[key], second[another] = second[another], parent[key]
        elif what == "rename" and isinstance(parent, dict):
            parent[f"{key}{nasty}"] = parent.pop(key)
        elif what == "drop":
            del parent[key]
        elif what == "new" and isinstance(parent, dict):
            parent[nasty] = value
        elif what == "wrap":
            parent[key] = [parent[key]]
        try:
            text = json.dumps(document)
        except ValueError:  # exchanged with a part of itself
            return
        if what == "double" and isinstance(parent, dict) and isinstance(key, str):
            text = text.replace(f"{json.dumps(key)}:", f"{json.dumps(key)}: {json.dumps(value)}, {json.dumps(key)}:", 1)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")

    return Damage(f"json:{what}", (name, pick, pair, value, nasty), change)


@st.composite
def line_damage(draw: st.DrawFn, names: Sequence[str]) -> Damage:
    """A change to the lines of a text file (TOML, YAML, JSON lines): dropped, doubled, swapped, a word or value replaced."""
    name, pick, pair = draw(st.sampled_from(names)), draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6))
    what = draw(st.sampled_from(("drop", "double", "swap", "value", "word", "join", "indent", "key")))
    value, nasty = draw(st.sampled_from(VALUES)), draw(st.sampled_from(NASTY))

    def change(directory: Path) -> None:
        path = directory / name
        lines = path.read_text(encoding="utf-8").split("\n")
        at, other = pick % len(lines), pair % len(lines)
        if what == "drop":
            del lines[at]
        elif what == "double":
            lines.insert(other, lines[at])
        elif what == "swap":
            lines[at], lines[other] = lines[other], lines[at]
        elif what == "value":
            lines[at] = re.sub(r"([=:]\s*).*", lambda found: found[1] + json.dumps(value), lines[at], count=1)
        elif what == "word":
            words = re.findall(r"\w+", lines[at]) or [""]
            lines[at] = lines[at].replace(words[pair % len(words)], nasty, 1)
        elif what == "join":
            lines[at : at + 2] = ["".join(lines[at : at + 2])]
        elif what == "indent":
            lines[at] = "  " + lines[at]
        elif what == "key":
            lines.insert(
                at, f"surprise = {json.dumps(value)}" if name.endswith("toml") else f"surprise: {json.dumps(value)}"
            )
        path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")

    return Damage(f"lines:{what}", (name, pick, pair, value, nasty), change)


def _places(document: Any) -> Any:
    """Every `(container, key)` of a JSON document."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in list(items):
        yield document, key
        yield from _places(value)
