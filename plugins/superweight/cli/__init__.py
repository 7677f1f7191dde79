"""The `superweight` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from superweight import __version__
from superweight.cli import artefacts, compressing, environments, models, runs
from superweight.errors import SuperweightError
from superweight.plain_text import one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        0 on success, 1 if the answer is no, 2 if something could not be done, with the reason on standard error in a
        line.

    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SuperweightError as error:
        print(f"superweight: {one_line(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left to be flushed at exit
        return 0
    except OSError as error:
        at = "" if error.filename is None else f"{error.filename}: "
        print(f"superweight: {one_line(f'{at}{error.strerror or error}')}", file=sys.stderr)
        return 2
    except Exception as error:
        if options.traceback:
            raise
        told = one_line(str(error))[:300]
        print(f"superweight: {type(error).__name__}: {told} (--traceback shows where)", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("superweight: interrupted; nothing half-written is left behind", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="superweight", description="Super weights, and what compression does to them."
    )
    parser.add_argument("--traceback", action="store_true", help="show where an unforeseen error comes from")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--cards", action="append", default=[], type=Path, metavar="DIR", help="a directory of your own cards"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (models, artefacts, compressing, environments, runs):
        group.add(commands)
    return parser
