"""What a model answered, item by item, told from log-likelihoods as lm-eval tells it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Item = Mapping[str, Any]

_STORED = 240  # characters of a choice that are kept with an item; of a longer one the length is not known


class Answer(NamedTuple):
    """What a model chose.

    Attributes:
        chosen: the number of a choice; −1 for none of them; of generated text, the text.
        words: to show it, one line.
        right: whether it is right; None if the item does not say.
    """

    chosen: int | str
    words: str
    right: bool | None


def answer(item: Item, metric: str) -> Answer | None:
    """What a model answered to one item.

    The choice with the largest log-likelihood: per character under `acc_norm`, per byte under `acc_bytes`, less the
    unconditional one under `acc_mutual_info`. Of a single continuation, whether greedy decoding gives it. Of generated
    text, the text. The item's own score says whether that is right, where it is 0 or 1.

    Args:
        item: `target`, `choices`, `loglikelihoods` (nats) and `is_greedy` or `responses`, and values of metrics; any of
            them may be missing.
        metric: the metric that is gated.

    Returns:
        the answer; None if the item does not tell.

    """
    score = item.get(metric)
    right = bool(score) if isinstance(score, int | float) and score in (0, 1) else None
    choices, values = log_likelihoods(item)
    if not choices:
        return _generated(item, right)
    if len(choices) == 1:
        return _greedy(item, choices[0], right)
    if not any(math.isfinite(value) for value in values):
        return Answer(-1, "no answer", False)  # a score of 1 would be the first choice's, by default
    chosen = _best(_preferences(item, metric, choices, values))
    target = item.get("target")
    indexed = isinstance(target, int) and not isinstance(target, bool)
    if right is None:
        right = chosen == target if indexed else None
    elif indexed and right != (chosen == target) and _cut_short(metric, choices):
        possible = [number for number in range(len(choices)) if (number == target) == right]
        if len(possible) > 1:
            return None
        chosen = possible[0]
    return Answer(chosen, _words(choices, chosen), right)


def log_likelihoods(item: Item) -> tuple[list[str], list[float]]:
    """The choices of an item and their log-likelihoods, nats; NaN counts as impossible. Empty if it has none."""
    choices, values = item.get("choices"), item.get("loglikelihoods")
    if not isinstance(choices, list) or not isinstance(values, list) or len(choices) != len(values):
        return [], []
    asked = len(choices) // 2 if _unconditional(item) else len(choices)
    return [str(choice) for choice in choices[:asked]], [_number(value) for value in values[:asked]]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else -math.inf


def _unconditional(item: Item) -> bool:
    """Whether the second half of the choices is each choice again, asked without the question (lm-eval)."""
    return len(item["choices"]) % 2 == 0 and any(str(name).startswith("acc_mutual_info") for name in item)


def _preferences(item: Item, metric: str, choices: Sequence[str], values: Sequence[float]) -> list[float]:
    """What the metric takes the largest of."""
    if metric.startswith("acc_mutual_info") and _unconditional(item):
        without = [_number(value) for value in item["loglikelihoods"][len(choices) :]]
        return [a - b if math.isfinite(b) else -math.inf for a, b in zip(values, without, strict=True)]
    if metric.startswith(("acc_norm", "acc_bytes")):
        texts = [choice[1:] if choice[:1].isspace() else choice for choice in choices]  # less the target delimiter
        lengths = [len(text.encode()) if metric.startswith("acc_bytes") else len(text) for text in texts]
        return [value / max(length, 1) for value, length in zip(values, lengths, strict=True)]
    return list(values)


def _best(values: Sequence[float]) -> int:
    """The first of the largest, as numpy's argmax has it."""
    return max(range(len(values)), key=lambda number: values[number])


def _cut_short(metric: str, choices: Sequence[str]) -> bool:
    """Whether the score knows lengths that the item does not, so that it may name another choice."""
    return metric.startswith(("acc_norm", "acc_bytes")) and any(len(choice) >= _STORED for choice in choices)


def _words(choices: Sequence[str], chosen: int) -> str:
    """A choice in words; by its number where all have the same and the questions differ, as in WinoGrande."""
    return f"choice {chosen + 1}" if len(set(choices)) < len(choices) else one_line(choices[chosen])


def _greedy(item: Item, continuation: str, right: bool | None) -> Answer | None:
    greedy = item.get("is_greedy")
    if not isinstance(greedy, list) or not greedy:
        return None
    given, words = bool(greedy[0]), one_line(continuation)
    return Answer(0 if given else -1, words if given else f"not '{words}'", given if right is None else right)


def _generated(item: Item, right: bool | None) -> Answer | None:
    responses = item.get("responses")
    if not isinstance(responses, list) or not responses:
        return None
    text = str(responses[0])
    return Answer(text, one_line(text), right)


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())
