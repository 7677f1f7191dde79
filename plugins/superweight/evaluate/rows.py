"""Which rows of a task can be asked of a model, and why others cannot: found out before any model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from superweight.errors import InfraError

MOST_LEFT_OUT = 1 / 20
"""Of a task's rows. A few bad ones are a data set's everyday; beyond that it is not the task that was meant, and the
share alone would be as large as the losses that gates look for."""

_SHOWN, _LISTED = 80, 3  # characters of a row, and rows, in a message


class LeftOut(NamedTuple):
    """A row that cannot be asked."""

    doc_id: int
    text: str
    """How its question ends, or the row itself."""
    reason: str

    def __str__(self) -> str:
        return f"row {self.doc_id} {self.reason}: {self.text!r}"


def bad_label(task: Any, document: Any) -> str:
    """Why a row of a multiple choice has no right answer among its choices; empty if it has, or has other rules.

    What lm-eval takes for the label: an index, the text of a choice, or a list of either where several are right. It
    scores a label outside the choices as wrong whatever is answered, and takes a negative one as a count from the end.
    """
    if task.OUTPUT_TYPE != "multiple_choice" or callable(getattr(task.config, "process_results", None)):
        return ""
    choices = task.doc_to_choice(document)
    if reason := _bad_choices(choices):
        return reason
    label = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    labels = label if isinstance(label, list) else [label]
    wrong = [one for one in labels if not _is_choice(one, choices)]
    if not labels:
        return "has no label"
    return f"has the label {wrong[0]!r}, which is none of its {len(choices)} choices" if wrong else ""


def bad_text(task: Any, document: Any) -> str:
    """Why a row would be asked with the word None where it has nothing; empty if it would not.

    A template makes that word of a key that a row lacks while others have it.
    """
    if not isinstance(document, Mapping) or all(value is not None for value in document.values()):
        return ""
    from lm_eval.utils import env

    before, env.finalize = env.finalize, _something
    try:
        texts = [task.doc_to_text(document), task.doc_to_target(document)]
    except _NothingError:
        texts = [None]
    finally:
        env.finalize = before
    empty = ", ".join(str(key) for key, value in document.items() if value is None)
    return f"has nothing where its text is made of it ({empty})" if None in texts else ""


class _NothingError(Exception):
    """A template puts in what a row does not have."""


def _something(value: Any) -> Any:
    if value is None:
        raise _NothingError
    return value


def _bad_choices(choices: Any) -> str:
    """Why choices are none that a model could be asked for."""
    if not isinstance(choices, list | tuple):
        return f"has a {type(choices).__name__} of choices; expected a list"
    odd = [one for one in choices if isinstance(one, bool) or not isinstance(one, str | int | float)]
    return f"has the choice {str(odd[0])[:_SHOWN]!r}, which is no text; put it into quotes" if odd else ""


def _is_choice(label: Any, choices: Sequence[str]) -> bool:
    if isinstance(label, str):
        return label in choices
    return isinstance(label, int) and 0 <= label < len(choices)


def bad_pair(continuation: str, tokens: tuple[Sequence[int], Sequence[int]] | Exception, longest: int) -> str:
    """Why a model cannot be asked for the likelihood of a continuation; empty if it can.

    Args:
        continuation: its text.
        tokens: of context and continuation, or what came of making them.
        longest: tokens that the model can be fed.
    """
    shown = f"the answer {continuation[:_SHOWN]!r}"
    if isinstance(tokens, Exception):
        if not continuation:
            return "has an empty answer"
        return f"cannot be made into tokens ({type(tokens).__name__}: {tokens})"
    context, answer = tokens
    if any(token is None for token in context):
        return "has an empty question, and the tokenizer knows neither a BOS nor an EOS token to begin with"
    if not answer:
        return f"has {shown}, which is no token of its own"
    if len(answer) > longest:
        return f"has {shown} of {len(answer)} tokens, and the model can be fed {longest}"
    return ""


def require_enough(task: str, left_out: Sequence[LeftOut], rows: int) -> None:
    """Refuse a task of which too many rows cannot be asked.

    Raises:
        InfraError: `bad-rows`; names the first of them.
    """
    if len(left_out) <= MOST_LEFT_OUT * rows and len(left_out) < rows:
        return
    listed = "; ".join(map(str, left_out[:_LISTED]))
    raise InfraError(
        f"task '{task}': {len(left_out)} of {rows} rows cannot be asked, more than one in {1 / MOST_LEFT_OUT:.0f}: "
        f"{listed}{'; …' if len(left_out) > _LISTED else ''}. Correct the rows, or doc_to_text, doc_to_choice and "
        "doc_to_target in the task's YAML.",
        reason="bad-rows",
    )


def shown(document: Any, prompt: str) -> str:
    """A row in a few words: how its prompt ends, else its first text."""
    texts = document.values() if isinstance(document, Mapping) else [document]
    words = prompt or next((one for one in texts if isinstance(one, str) and one), str(document))
    words = " ".join(words.split())
    return words if len(words) <= _SHOWN else f"…{words[-_SHOWN:]}"
