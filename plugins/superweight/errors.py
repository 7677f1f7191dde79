"""What can go wrong, as exceptions whose message says what was expected, what was found, and what to do."""

from __future__ import annotations

from typing import Literal
from unicodedata import category

InfraReason = Literal[
    "offline",  # no route to the host that has it
    "unauthorised",  # 401 or 403: a token is missing or not good enough
    "not-found",  # 404, or a path that is not there
    "hash-mismatch",  # the bytes are not the pinned ones
    "disk-full",
    "corrupt",  # cut short, or a header that lies
    "missing-tensor",  # a shard or a tensor that the model needs is not in the checkpoint
    "unused-tensor",  # the checkpoint holds a tensor that the model makes no use of
    "non-finite",  # NaN or infinity where a number belongs
    "pickle",  # a checkpoint format that runs code when it is read
    "unsupported",  # readable, but not something this library can gate
    "bad-card",  # a card or a task's settings that only show when they are used
    "bad-rows",  # too many rows of a task cannot be asked
    "too-short",  # a corpus with less than one window
    "recipe-mismatch",  # a recipe that fits no module of the model
    "not-applicable",  # a recipe of super weights, and a model in which none is known
    "missing-package",  # an optional dependency is not installed
    "interrupted",
    "test-failed",  # a test of somebody's own did, or it took too long
    "crash",  # anything unforeseen
]

_HIDDEN = ("Cc", "Cf", "Cs")  # categories of Unicode: control, format, surrogate


class SuperweightError(Exception):
    """Base of every error this library raises on purpose.

    Messages quote names from files, which may hold anything: as text, control characters are escaped in them, and so
    is what has no UTF-8 or turns the text around it.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """Text that can be shown anywhere: line ends stay, other control characters become their escapes."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(one if one == "\n" or category(one) not in _HIDDEN else ascii(one)[1:-1] for one in text)


class CardError(SuperweightError):
    """A card that cannot be used: names the file, the key path, what was found and what is allowed."""


class InfraError(SuperweightError):
    """A measurement that could not be made: the run turns red, and nothing is said about the model.

    Args:
        message: what was expected, what was found, where, and what to do.
        reason: one of `InfraReason`, for machines.

    """

    def __init__(self, message: str, *, reason: InfraReason) -> None:
        super().__init__(message)
        self.reason: InfraReason = reason


class GateFailure(AssertionError):  # noqa: N818 - an outcome, not an error
    """A gate that did not pass; its text is the whole argument."""


class Inconclusive(UserWarning):
    """A gate that the measured items cannot decide."""


class Suspicious(UserWarning):
    """A figure that is better than it can be."""


class Waived(UserWarning):
    """A gate that failed, and that somebody answers for."""
