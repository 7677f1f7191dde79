"""The tool `fake` for tests: what a card may set of it, and where its script is."""

from typing import Literal

from superweight.cards.methods import Quantiser
from superweight.cards.methods.tools import TOOLS, LeavesModulesOut, Tool


class Fake(LeavesModulesOut):
    do: str = "write"
    note: str = ""
    reads: Literal["none", "optional", "needed"] = "none"

    @property
    def text(self):
        return self.reads


FAKE = Tool(Fake, "support:fake_quantiser.py", ("pytest",), extra="test")


def add_fake_tool(monkeypatch, **changes):
    """Make cards know the tool until the test ends."""
    from dataclasses import replace

    monkeypatch.setitem(TOOLS, "fake", replace(FAKE, **changes))


def fake(do="write", *, corpus=None, **settings):
    reads = "needed" if corpus else "none"
    return Quantiser(
        kind="quantiser", tool="fake", settings={"do": do, "reads": reads, **settings}, calibration_corpus=corpus
    )
