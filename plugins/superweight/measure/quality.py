"""Measure quality: perplexity, zero-shot accuracy and their A/A repeats, batch by batch, written down as they come."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from superweight.cards import TierPerplexity, TierTask
from superweight.errors import InfraError
from superweight.evaluate import (
    PROTOCOL,
    PreparedTask,
    perplexity_figure,
    prepare_task,
    prepare_text,
    score_batch,
)
from superweight.evidence import CellEvidence, Noise, Perplexity
from superweight.forward.runner import Runner, TextWindows
from superweight.measure.batches import Measured, measure_batches
from superweight.measure.integrity import set_cell_key
from superweight.measure.reference import Reference
from superweight.progress import Step, Watch

Stop = Callable[[CellEvidence, str], bool]
"""Whether a cell's evidence, some figure of which is unfinished, decides that gate already."""

_LOOK_TOKENS = {"cpu": 2048, "cuda": 16384}  # of windows scored before a verdict is thought of
_REPEATED_WINDOWS, _REPEATED_ITEMS = 8, 250  # of an A/A repeat, at most


class QualityFigures:
    """Takes figures of one model under one runner after another; texts and requests are prepared once.

    Args:
        reference: the uncompressed model.
        stop: asked after every batch of a cell that is not the baseline.
        watch: told after every batch.
    """

    def __init__(self, reference: Reference, stop: Stop | None = None, watch: Watch = lambda _: None) -> None:
        self._reference = reference
        self._stop = stop
        self._watch = watch
        self._texts: dict[TierPerplexity, TextWindows] = {}
        self._tasks: dict[TierTask, PreparedTask] = {}

    def perplexity_into(self, runner: Runner, evidence: CellEvidence, entry: TierPerplexity) -> None:
        """Perplexity under a runner, and the divergence from the uncompressed model where the runner can give it."""
        text, gate = self._text(entry), f"perplexity:{entry.corpus}"
        compare = evidence.role != "baseline"

        def figure(scores: Sequence[dict[str, Any]]) -> Perplexity:
            origin = str(self._reference.library.corpora[entry.corpus].source)
            vocabulary = runner.vocabulary
            return perplexity_figure(text, scores, vocabulary=vocabulary, corpus=entry.corpus, origin=origin)

        def decided(scores: list[dict[str, Any]]) -> bool:
            seen = {**evidence.perplexity, entry.corpus: figure(scores)}
            return self._decides(evidence.model_copy(update={"perplexity": seen}), gate)

        measured = measure_batches(
            self._reference.store,
            {**_text_key(text), "compared": compare, **runner.identity},
            text.batches,
            lambda batch: score_batch(runner, text, batch, compare=compare),
            decided=decided,
            on_progress=self._progress(evidence.id, gate, text.batches),
        )
        evidence.perplexity[entry.corpus] = figure(measured.items).model_copy(update={"key": measured.key})
        _keyed(evidence, runner, gate, measured)

    def zero_shot_into(self, runner: Runner, evidence: CellEvidence, entry: TierTask) -> None:
        """One task under a runner."""
        task, gate = self._task(entry), f"zero-shot:{entry.task}"

        def decided(items: list[dict[str, Any]]) -> bool:
            seen = {**evidence.zero_shot, entry.task: task.figure(items)}
            return self._decides(evidence.model_copy(update={"zero_shot": seen}), gate)

        measured = measure_batches(
            self._reference.store,
            {**_task_key(task), **runner.identity},
            task.batches,
            lambda batch: _numbers(entry, task.card.metric, task.ask(runner, batch)),
            decided=decided,
            on_progress=self._progress(evidence.id, gate, task.batches),
        )
        evidence.zero_shot[entry.task] = task.figure(measured.items).model_copy(update={"key": measured.key})
        _keyed(evidence, runner, gate, measured)

    def perplexity_again(self, runner: Runner, evidence: CellEvidence, entry: TierPerplexity) -> None:
        """Repeat the uncompressed model's perplexity in another way, one window a pass."""
        text, gate = self._text(entry), f"perplexity:{entry.corpus}"
        some = [[index] for batch in text.batches for index in batch][:_REPEATED_WINDOWS]
        with runner.another_way() as other:
            variation = "; ".join(part for part in (other, "one window a pass") if part)
            measured = measure_batches(
                self._reference.store,
                {**_text_key(text), **_again(runner, variation, len(some))},
                some,
                lambda batch: score_batch(runner, text, batch),
                on_progress=self._progress(evidence.id, f"noise:{gate}", some),
            )
        known = evidence.perplexity[entry.corpus]
        nll = known.by_window(known.nll)
        pairs = [(nll[item["window"]], float(item["nll"])) for item in measured.items]
        figures = [math.exp(statistics.fmean(side)) for side in zip(*pairs, strict=True)]
        evidence.noise[gate] = _noise(variation, pairs, reference=figures[0], value=figures[1])

    def zero_shot_again(self, runner: Runner, evidence: CellEvidence, entry: TierTask) -> None:
        """Repeat the uncompressed model's answers in another way, in other batches."""
        task, gate = self._task(entry), f"zero-shot:{entry.task}"
        numbers = [number for batch in task.batches for number in batch][:_REPEATED_ITEMS]
        with runner.another_way() as other:
            variation = "; ".join(part for part in (other, f"{len(numbers)} items at once") if part)
            key = {**_task_key(task), **_again(runner, variation, len(numbers))}
            measured = measure_batches(self._reference.store, key, [numbers], lambda batch: task.ask(runner, batch))
        known = {item["doc_id"]: float(item[task.card.metric]) for item in evidence.zero_shot[entry.task].items}
        pairs = [(known[item["doc_id"]], float(item[task.card.metric])) for item in measured.items]
        figures = [statistics.fmean(side) for side in zip(*pairs, strict=True)]
        evidence.noise[gate] = _noise(variation, pairs, reference=figures[0], value=figures[1])

    def _decides(self, seen: CellEvidence, gate: str) -> bool:
        """Whether an unfinished figure decides; the uncompressed model is measured in full."""
        return seen.role != "baseline" and self._stop is not None and self._stop(seen, gate)

    def _progress(self, cell: str, stage: str, batches: Sequence[Sequence[int]]) -> Callable[[int], None]:
        planned = sum(map(len, batches))
        return lambda done: self._watch(Step(cell, stage, done, planned))

    def _text(self, entry: TierPerplexity) -> TextWindows:
        if entry not in self._texts:
            loaded = self._reference.loaded
            # in a mixture, experts see the tokens of a whole batch at once, and so would a scale over their inputs
            mixture = any(weight.experts for weight in loaded.architecture.linear_weights)
            self._texts[entry] = prepare_text(
                loaded,
                self._reference.tokens(entry.corpus),
                window=entry.window,
                windows=entry.windows,
                batch_tokens=None if mixture else _LOOK_TOKENS.get(loaded.device.type, _LOOK_TOKENS["cuda"]),
                name=f"corpus '{entry.corpus}'",
            )
        return self._texts[entry]

    def _task(self, entry: TierTask) -> PreparedTask:
        if entry not in self._tasks:
            reference = self._reference
            card, lm = reference.library.tasks[entry.task], reference.memory.model.task_lm
            self._tasks[entry] = prepare_task(lm, card, reference.cache, limit=entry.limit)
        return self._tasks[entry]


def _text_key(text: TextWindows) -> dict[str, Any]:
    window = text.tokens_wt.shape[1]
    asked = {"tokens": text.tokens_sha256, "window": window, "batch": len(text.batches[0])}
    return {"measured": "perplexity", "protocol": PROTOCOL, **asked}


def _task_key(task: PreparedTask) -> dict[str, Any]:
    return {"measured": "zero-shot", "task": task.card.task, "content": task.content, "batch": len(task.batches[0])}


def _again(runner: Runner, variation: str, repeated: int) -> dict[str, Any]:
    return {"measured": "A/A", "variation": variation, "repeated": repeated, **runner.identity}


def _keyed(evidence: CellEvidence, runner: Runner, gate: str, measured: Measured) -> None:
    set_cell_key(evidence, runner)
    if measured.since:
        evidence.reused[gate] = measured.since


def _noise(variation: str, pairs: Sequence[tuple[float, float]], *, reference: float, value: float) -> Noise:
    differences = [after - before for before, after in pairs]
    return Noise(
        variation=variation,
        n=len(pairs),
        value=value,
        reference=reference,
        mean=statistics.fmean(differences),
        sd=statistics.stdev(differences) if len(differences) > 1 else 0.0,
        changed=sum(difference != 0 for difference in differences),
    )


def _numbers(entry: TierTask, metric: str, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    odd = [item.get(metric) for item in items if not isinstance(item.get(metric), int | float)]
    if odd:
        raise InfraError(
            f"task card '{entry.task}': metric '{metric}' has no number for each item (found {odd[0]!r}), "
            "so it cannot be compared item by item. Choose one that is a mean over items, such as acc.",
            reason="unsupported",
        )
    return items
