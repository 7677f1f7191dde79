"""What the subcommands share: the cards that the options name, and a line on standard error."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superweight.cards import Library


def library(options: argparse.Namespace) -> Library:
    """The cards that ship and those of the directories that the options name."""
    from superweight.cards import load_library  # here, so that --help and --version need no cards

    return load_library(options.cards)


def say(line: str) -> None:
    """A line on standard error."""
    print(line, file=sys.stderr)
