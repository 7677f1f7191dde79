"""Charts as SVG for the page: drawn here, so that the page shows them without any script."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from superweight.report.pictures.picture import Picture

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DECIMALS = re.compile(r"-?\d+\.\d{2,}(?:e-?\d+)?")
_OURS = "\u2063"  # before what a mark says of itself; other marks are described by the renderer
_NOTHING = "M0,0h0v0h0Z"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SCRIPT = Path(__file__).with_name("vega.py")
_PATIENCE = 60.0  # seconds, and a tenth of a second more for each picture


class DrawingError(Exception):
    """A picture that could not be drawn, and why."""


def draw(pictures: Sequence[Picture]) -> list[str | DrawingError]:
    """Each picture as one `<svg>` element, or why it could not be drawn.

    An element is safe within HTML: no script, no link, no style, all text escaped. What a mark says of itself is in
    `data-tip`, and the cell it stands for in `data-cell`.
    """
    from superweight.report.pictures.theme import specification

    try:
        lines = [json.dumps(_clean(specification(picture.chart))) for picture in pictures]
        answers = _answers(lines)
    except Exception as error:  # no picture is worth a report
        return [DrawingError(f"{type(error).__name__}: {error}") for _ in pictures]
    found: list[str | DrawingError] = []
    for picture, answer in zip(pictures, answers, strict=True):
        try:
            found.append(DrawingError(answer["error"]) if "error" in answer else _element(picture, answer["svg"]))
        except Exception as error:
            found.append(DrawingError(f"{type(error).__name__}: {error}"))
    return found


def drawable() -> str:
    """Why no picture can be drawn here; empty if one can."""
    packages = {"altair": "altair", "vl_convert": "vl-convert-python"}
    missing = [package for name, package in packages.items() if find_spec(name) is None]
    return f"{' and '.join(missing)} cannot be imported: pip install {' '.join(missing)}" if missing else ""


def _answers(lines: Sequence[str]) -> list[dict[str, str]]:
    """What the renderer says to each; one that dies over a picture is started again for the next."""
    answers: list[dict[str, str]] = []
    while len(answers) < len(lines):
        rest = lines[len(answers) :]
        process = [sys.executable, "-P", str(_SCRIPT)]
        died = "the renderer died over it"
        try:
            done = subprocess.run(
                process, input="\n".join(rest), capture_output=True, text=True, timeout=_PATIENCE + 0.1 * len(rest)
            )
            said, trouble = done.stdout, done.stderr
        except subprocess.TimeoutExpired as error:
            said, trouble = _text(error.stdout), "it took too long"
        answers += [answer for answer in map(_answer, said.splitlines()) if answer]
        if len(answers) < len(lines):
            answers.append({"error": f"{died}: {trouble.strip().splitlines()[-1] if trouble.strip() else 'no reason'}"})
    return answers[: len(lines)]


def _answer(line: str) -> dict[str, str]:
    """One answer of the renderer; empty if the line is something else, or the end of it is missing."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and ("svg" in found or "error" in found) else {}


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _clean(value: Any) -> Any:
    """Text that XML can hold, since the renderer dies over other characters, and what marks say marked as ours."""
    if isinstance(value, str):
        return _NO_XML.sub("\ufffd", value)
    if isinstance(value, dict):
        return {name: _OURS + _clean(item) if name == "tip" else _clean(item) for name, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value


def _element(picture: Picture, text: str) -> str:
    root = ET.fromstring(text)
    for element, marks in _walk(root, False):
        told = element.get("aria-label", "")
        attributes = {
            name: _DECIMALS.sub(_shorter, value)
            for name, value in element.attrib.items()
            if not name.startswith("aria-") and name not in ("role", "class", "font-family", _LINK)
        }
        if marks and told.startswith(_OURS):
            attributes["data-tip"] = told.removeprefix(_OURS)
        if element.tag == f"{{{_SVG}}}a":
            element.tag = f"{{{_SVG}}}g"
            cell = element.get(_LINK, "").partition("#")[2]
            attributes.update({"data-cell": cell} if cell else {})
        element.attrib.clear()
        element.attrib.update(attributes)
    _prune(root)
    root.set("role", "img")
    root.set("aria-label", _clean(f"{picture.title}. {picture.description}"))
    root.set("class", "picture")
    ET.register_namespace("", _SVG)
    return ET.tostring(root, encoding="unicode")


def _walk(element: ET.Element, marks: bool) -> Iterator[tuple[ET.Element, bool]]:
    """Every element, and whether it draws data; children first, since attributes are dropped on the way."""
    marks = marks or "role-mark" in element.get("class", "").split()
    for child in element:
        yield from _walk(child, marks)
    yield element, marks


def _prune(element: ET.Element) -> None:
    for child in list(element):
        _prune(child)
        hidden = child.get("display") == "none" or child.get("d") == _NOTHING
        empty = child.tag == f"{{{_SVG}}}g" and len(child) == 0
        if hidden or empty:
            element.remove(child)


def _shorter(match: re.Match[str]) -> str:
    return f"{round(float(match[0]), 2):g}" if "e" not in match[0] else "0"
