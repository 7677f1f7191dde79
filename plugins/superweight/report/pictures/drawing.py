"""Charts as SVG for the page: drawn here, so that the page shows them without any script."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from superweight.report.pictures.picture import Picture

if TYPE_CHECKING:
    from collections.abc import Iterator

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DECIMALS = re.compile(r"-?\d+\.\d{2,}(?:e-?\d+)?")
_NOTHING = "M0,0h0v0h0Z"


def svg(picture: Picture) -> str:
    """The picture as one `<svg>` element, safe within HTML: no script, no link, no style, all text escaped.

    What a mark says of itself is in `data-tip`, and the cell it stands for in `data-cell`.
    """
    import vl_convert

    from superweight.report.pictures.theme import themed

    drawn = ET.fromstring(vl_convert.vegalite_to_svg(themed(picture.chart).to_dict()))
    root = _plain(drawn)
    root.set("role", "img")
    root.set("aria-label", f"{picture.title}. {picture.description}")
    root.set("class", "picture")
    ET.register_namespace("", _SVG)
    return ET.tostring(root, encoding="unicode")


def _plain(root: ET.Element) -> ET.Element:
    """Without what only Vega reads, in place."""
    for element, marks in _walk(root, False):
        told = element.get("aria-label", "")
        attributes = {
            name: _DECIMALS.sub(_shorter, value)
            for name, value in element.attrib.items()
            if not name.startswith("aria-") and name not in ("role", "class", "font-family", _LINK)
        }
        if marks and told and element.get("role") == "graphics-symbol":
            attributes["data-tip"] = told
        if element.tag == f"{{{_SVG}}}a":
            element.tag = f"{{{_SVG}}}g"
            attributes["data-cell"] = element.get(_LINK, "").partition("#")[2]
        element.attrib.clear()
        element.attrib.update(attributes)
    _prune(root)
    return root


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


def drawable() -> str:
    """Why no picture can be drawn here; empty if one can."""
    missing = []
    for name, package in (("altair", "altair"), ("vl_convert", "vl-convert-python")):
        try:
            __import__(name)
        except ImportError:
            missing.append(package)
    return f"{' and '.join(missing)} cannot be imported: pip install {' '.join(missing)}" if missing else ""
