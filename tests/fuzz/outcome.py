"""What may come of damaged input: it is told in words that a person can act on, or it works, and before long."""

from __future__ import annotations

import signal
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from fuzz.damage import Damage
from superweight.errors import SuperweightError

Found = TypeVar("Found")


class Hung(BaseException):
    """It took too long; not an `Exception`, so that nobody takes it for one of those they know."""


@contextmanager
def before_long(seconds: float = 20) -> Iterator[None]:
    """Interrupt a block that waits: for a pipe, or for a link to end."""

    def interrupt(*_: Any) -> None:
        raise Hung(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(action: Callable[[], Found], names: Collection[str]) -> Found | None:
    """What an action gives; None if it says in good words that it cannot.

    Args:
        action: what is tried on the damaged input.
        names: of the damaged files and of the cards in them; one of them must be said.
    """
    told: SuperweightError
    try:
        with before_long():
            return action()
    except SuperweightError as error:
        told = error
    text = str(told)
    assert not stray(text), f"characters that cannot be seen: {text!r}"
    assert "Traceback" not in text
    assert any(name in text for name in names), f"expected one of {names} in: {text}"
    assert len(text) < 20_000
    assert getattr(told, "reason", "") != "crash", text
    return None


def stray(text: str) -> list[str]:
    """Characters that a terminal or a page acts on instead of showing them."""
    return [one for one in text if one not in "\n\t" and unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def snapshot(directory: Path) -> dict[str, bytes]:
    """Content of every file, by its path in the directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def restore(directory: Path, files: dict[str, bytes]) -> None:
    """Make a new directory of a snapshot."""
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)


def inflict(damages: Iterable[Damage], directory: Path) -> None:
    """Do one damage after another; one whose file an earlier one has made away with is left out."""
    for damage in damages:
        names = [name for name in damage.arguments[:2] if isinstance(name, str)]
        if all((directory / name).is_file() for name in names):
            with suppress(OSError, ValueError):
                damage(directory)
