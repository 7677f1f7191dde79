"""Which answers changed, and where text got harder: the items and windows behind a figure.

Flips are those of Dutta et al., *Accuracy is Not All You Need* (arXiv:2407.09141): two models of the same accuracy may
answer many questions differently.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from superweight.evidence.measured import Perplexity, ZeroShot, item_key
from superweight.verdict.answers import Answer, Item, answer, log_likelihoods, one_line
from superweight.verdict.result import ChangedAnswer, WindowLoss

_TEXT = 80  # characters of a question, of one line of a report
_ANSWER = 40


class Flip(NamedTuple):
    """One item that is answered differently under the candidate.

    Attributes:
        doc_id: lm-eval's number of the item.
        text: the question in one line, its last 80 characters if short.
        before: the baseline's answer, one line.
        after: the candidate's.
        was_right: whether the baseline's was right; None if the item does not say.
        is_right: whether the candidate's is.
        shift: by how much the new answer gained on the old one in log-likelihood, nats; infinite if one of them is
            impossible under one of the models, None of generated text, which has none.
    """

    doc_id: int
    text: str
    before: str
    after: str
    was_right: bool | None
    is_right: bool | None
    shift: float | None

    @property
    def direction(self) -> str:
        """`right → wrong`, `wrong → right`, `wrong → wrong`; `?` stands for what is not known."""
        words = {True: "right", False: "wrong", None: "?"}
        return f"{words[self.was_right]} → {words[self.is_right]}"


def flips(baseline: ZeroShot, candidate: ZeroShot, *, short: bool = True) -> list[Flip]:
    """Items whose chosen answer changed, the largest shift first.

    Generated text counts where its score changed too: hardly any stays the same to the letter.

    Args:
        baseline: the uncompressed model's items.
        candidate: the compressed model's; items that only one of the two has are left out.
        short: cut questions and answers to what fits a line.

    """
    changed = []
    for item, candidates_item, before, after in _both(baseline, candidate):
        generated = isinstance(before.chosen, str)
        if before.chosen == after.chosen or (generated and before.right == after.right):
            continue
        old, new, text = before.words, after.words, one_line(str(item.get("text", "")))
        if short:
            old, new = _apart(old, new)
            text = _shortened(text[::-1], _TEXT)[::-1]  # what a question ends with matters
        shift = _shift(item, candidates_item, before, after)
        changed.append(Flip(int(item["doc_id"]), text, old, new, before.right, after.right, shift))
    return sorted(changed, key=lambda flip: -math.inf if flip.shift is None else flip.shift, reverse=True)


def compared(baseline: ZeroShot, candidate: ZeroShot) -> int:
    """How many items both models have an answer to, which is the n of a share of flips."""
    return sum(1 for _ in _both(baseline, candidate))


def directions(changed: Iterable[Flip]) -> dict[str, int]:
    """How many flips went each way, by `Flip.direction`; the three that are known both ways are always there."""
    counts = {"right → wrong": 0, "wrong → right": 0, "wrong → wrong": 0}
    for flip in changed:
        counts[flip.direction] = counts.get(flip.direction, 0) + 1
    return counts


def largest_shifts(changed: Sequence[Flip], most: int = 5) -> list[ChangedAnswer]:
    """The first few flips, as a gate keeps them.

    Args:
        changed: as `flips` returns them.
        most: how many are kept.

    """
    return [
        ChangedAnswer(
            doc_id=flip.doc_id,
            direction=flip.direction,
            shift=flip.shift,
            text=flip.text,
            before=flip.before,
            after=flip.after,
        )
        for flip in changed[:most]
    ]


def answers_text(counts: Mapping[str, int], listed: Sequence[ChangedAnswer]) -> str:
    """A line of counts, and one for each listed answer.

    Args:
        counts: how many answers changed each way, as `directions` gives them.
        listed: those to be named.

    """
    total = sum(counts.values())
    if not total:
        return "no answer changed"
    ways = ", ".join(f"{count} {way}" for way, count in counts.items() if count)
    head = f"{total} answer{'' if total == 1 else 's'} changed: {ways}"
    lines = [
        f"item {answer.doc_id} ({answer.direction}{_gained(answer.shift)}): {answer.text} | "
        f"{answer.before} → {answer.after}"
        for answer in listed
    ]
    return "\n".join([head + ("; the largest shifts:" if 0 < len(listed) < total else ""), *lines])


def worst_windows(baseline: Perplexity, candidate: Perplexity, most: int = 5) -> list[WindowLoss]:
    """Windows that both models were scored on, the largest loss first.

    Args:
        baseline: the uncompressed model's windows.
        candidate: the compressed model's; a window that only one of the two has, or on which neither has a finite
            likelihood, is left out.
        most: how many are returned.

    """
    before, after = baseline.by_window(baseline.nll), candidate.by_window(candidate.nll)
    losses = {window: after[window] - before[window] for window in sorted(before.keys() & after.keys())}
    comparable = [window for window, loss in losses.items() if not math.isnan(loss)]
    largest = sorted(comparable, key=losses.__getitem__, reverse=True)[:most]
    return [WindowLoss(window=window, before=before[window], after=after[window]) for window in largest]


def windows_text(windows: Iterable[WindowLoss]) -> str:
    """One line a window, with its place in the text and nats a token."""
    return "\n".join(
        f"window {each.window}: {each.before:.3f} → {each.after:.3f} nats a token ({each.loss:+.3f})"
        for each in windows
    )


def _both(baseline: ZeroShot, candidate: ZeroShot) -> Iterator[tuple[Item, Item, Answer, Answer]]:
    """Items that both models have, and both answers, where both can be told."""
    known = {item_key(item): item for item in candidate.items if "doc_id" in item and "doc_hash" in item}
    for item in baseline.items:
        if not ("doc_id" in item and "doc_hash" in item and item_key(item) in known):
            continue
        candidates_item = known[item_key(item)]
        before, after = answer(item, baseline.metric), answer(candidates_item, candidate.metric)
        if before is not None and after is not None:
            yield item, candidates_item, before, after


def _shift(item: Item, candidates_item: Item, before: Answer, after: Answer) -> float | None:
    """(new − old) under the candidate, less the same under the baseline; of one continuation, its own change."""
    if isinstance(before.chosen, str) or isinstance(after.chosen, str):
        return None
    (_, base), (_, found) = log_likelihoods(item), log_likelihoods(candidates_item)
    if len(base) != len(found):
        return None

    def gain(chosen: int) -> float:
        if len(found) == 1 and chosen == -1:
            return 0.0  # whatever else greedy decoding gives was not scored
        return found[chosen] - base[chosen] if chosen >= 0 else math.nan

    shift = gain(after.chosen) - gain(before.chosen)
    return shift if math.isfinite(shift) else math.inf


def _gained(shift: float | None) -> str:
    if shift is None:
        return ""
    return f", {shift:+.2f} nats" if math.isfinite(shift) else ", impossible under one model"


def _apart(one: str, other: str) -> tuple[str, str]:
    """Two answers cut to what fits, from where they begin to differ if they are long."""
    if max(len(one), len(other)) > _ANSWER:
        shorter = min(len(one), len(other))
        same = next((place for place in range(shorter) if one[place] != other[place]), shorter)
        start = one.rfind(" ", 0, same) + 1
        if start:
            one, other = f"…{one[start:]}", f"…{other[start:]}"
    return _shortened(one, _ANSWER), _shortened(other, _ANSWER)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
