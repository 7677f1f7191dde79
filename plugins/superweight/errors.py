"""What can go wrong, as exceptions whose message says what was expected, what was found, and what to do."""

from __future__ import annotations

from typing import Literal

from superweight.plain_text import visible

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
    "cannot-tell",  # what runs the model does not show what is asked
    "missing-package",  # an optional dependency is not installed
    "interrupted",
    "test-failed",  # a test of somebody's own did, or it took too long
    "crash",  # anything unforeseen
]


class SuperweightError(Exception):
    """Base of every error this library raises on purpose.

    Args:
        message: for people; what cannot be seen in it is escaped, as it may stem from a file or a file's name.

    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


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
