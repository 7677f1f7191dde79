"""What guessing would score on a task, and whether the uncompressed model does better, so that a loss could be seen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from scipy import stats

from superweight.evidence.measured import ZeroShot

LEVEL = 0.05
"""One-sided: a model that guesses is taken for one that does better in at most so many cases."""


class Guessing(NamedTuple):
    """What is scored without reading the question."""

    chance: float
    """By choosing at random, on average over the items."""
    constant: float
    """By the better of choosing at random and always giving the same answer, where all items offer one."""


def guessing(figure: ZeroShot) -> Guessing:
    """What guessing would score; 0 where answers are not chosen from a list, or scores are no hits and misses."""
    scores = list(figure.scores().values())
    options = [len(item.get("loglikelihoods") or ()) for item in figure.items]
    graded = any(score not in (0.0, 1.0) for score in scores)
    if not scores or graded or not figure.higher_is_better or min(options) < 2:
        return Guessing(0.0, 0.0)
    chance = math.fsum(1 / count for count in options) / len(options)
    right = Counter(text for item in figure.items if (text := _right(item)) is not None)
    offered = set.intersection(*({str(text) for text in item.get("choices") or ()} for item in figure.items))
    often = max((count for text, count in right.items() if text in offered), default=0) / len(options)
    return Guessing(chance, max(chance, often))


def nothing_to_lose(figure: ZeroShot, margin: float | None = None) -> str:
    """Why no loss could be seen from where the uncompressed model stands; empty if one could.

    Args:
        figure: the uncompressed model's, all of its items.
        margin: largest accepted loss; what is only seen beside it is left out if not given.
    """
    scores = list(figure.scores().values())
    if not scores or not figure.higher_is_better:
        return ""
    value = math.fsum(scores) / len(scores)
    if value == 0:
        return f"the uncompressed model itself scores nothing on {len(scores)} items"
    found = guessing(figure)
    if found.chance and stats.binom.sf(round(math.fsum(scores)) - 1, len(scores), found.chance) > LEVEL:
        return (
            f"the uncompressed model's {value:.3f} over {len(scores)} items is within noise of guessing "
            f"({found.chance:.3f})"
        )
    if margin is not None and value - found.constant <= margin:
        return (
            f"a model that only guesses scores {found.constant:.3f}, and would lose no more than the accepted "
            f"{margin:.3f} from the uncompressed model's {value:.3f}"
        )
    return ""


def _right(item: Mapping[str, Any]) -> str | None:
    """The text of an item's right answer, if its target is one choice."""
    target, choices = item.get("target"), item.get("choices") or []
    if isinstance(target, int) and 0 <= target < len(choices):
        return str(choices[target])
    return None
