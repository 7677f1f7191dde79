"""Perplexity, zero-shot accuracy and their A/A repeats on a model on the bench, batch by batch, written down."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from superweight.cards import Cell, TierPerplexity, TierTask
from superweight.cards.recipe import Method
from superweight.errors import InfraError
from superweight.evaluate import PROTOCOL, PreparedTask, PreparedText, another_kernel, prepare_task
from superweight.evidence import CellEvidence, Noise, Perplexity, ZeroShot
from superweight.measure.batches import Measured, measure_batches
from superweight.measure.model_under_recipe import ModelUnderRecipe
from superweight.progress import Step, Watch

Stop = Callable[[CellEvidence, str], bool]
"""Whether a cell's evidence, some figure of which is unfinished, decides that gate already."""

_LOOK_TOKENS = {"cpu": 2048, "cuda": 16384}  # of windows scored before a verdict is thought of
_REPEATED_WINDOWS, _REPEATED_ITEMS = 8, 250  # of an A/A repeat, at most


class QualityFigures:
    """Takes figures of one model under one recipe after another.

    Args:
        bench: the model.
        stop: asked after every batch of a cell that is not the baseline.
        watch: told after every batch.
    """

    def __init__(self, bench: ModelUnderRecipe, stop: Stop | None = None, watch: Watch = lambda _: None) -> None:
        self._bench = bench
        self._stop = stop
        self._watch = watch
        self._texts: dict[TierPerplexity, PreparedText] = {}
        self._tasks: dict[TierTask, PreparedTask] = {}

    def perplexity_into(self, cell: Cell, evidence: CellEvidence, entry: TierPerplexity) -> None:
        """Perplexity under the cell's recipe, and the divergence from the uncompressed model.

        There is no divergence where a recipe changes the head itself, which reads both models' states, nor of a model
        whose head cannot be run apart from its body.
        """
        bench, text, gate = self._bench, self._text(entry), f"perplexity:{entry.corpus}"
        is_baseline = cell.role == "baseline"
        separable = bench.scorer.language_model.separable  # else states are logits, too large to be kept
        compare = separable and not is_baseline

        def begin() -> None:
            nonlocal compare
            if compare and not text.remembered:
                bench.undo()
                text.remember()
            applied = bench.apply(cell)
            compare = compare and not _changes_head(bench, {*applied.rewritten, *applied.hooks})

        def figure(scores: Sequence[dict[str, Any]]) -> Perplexity:
            origin = str(bench.library.corpora[entry.corpus].source)
            return Perplexity(corpus=entry.corpus, origin=origin, **text.figure(scores).as_dict())

        def partly(scores: list[dict[str, Any]]) -> bool:
            seen = evidence.model_copy(update={"perplexity": {**evidence.perplexity, entry.corpus: figure(scores)}})
            return self._stop is not None and self._stop(seen, gate)

        bench.describe(evidence, cell)
        taken = measure_batches(
            bench.store,
            bench.figure_key_parts(cell, **_text_key(text), role="reference" if is_baseline else "compared"),
            text.batches,
            lambda batch: text.score(batch, remember=is_baseline and separable, compare=compare),
            begin=begin,
            decided=(lambda _: False) if is_baseline else partly,
            on_progress=self._seen(cell.id, gate, text.batches),
        )
        evidence.perplexity[entry.corpus] = figure(taken.items).model_copy(update={"key": taken.key})
        self._signed(evidence, gate, taken)

    def zero_shot_into(self, cell: Cell, evidence: CellEvidence, entry: TierTask) -> None:
        """One task under the cell's recipe."""
        bench, task, gate = self._bench, self._task(entry), f"zero-shot:{entry.task}"
        alone = _needs_a_row_of_its_own(cell.recipe.method)

        def apply_recipe() -> None:
            bench.apply(cell)

        def figure(items: Sequence[dict[str, Any]]) -> ZeroShot:
            return ZeroShot.model_validate(task.figure(items).as_dict())

        def partly(items: list[dict[str, Any]]) -> bool:
            seen = evidence.model_copy(update={"zero_shot": {**evidence.zero_shot, entry.task: figure(items)}})
            return self._stop is not None and self._stop(seen, gate)

        bench.describe(evidence, cell)
        taken = measure_batches(
            bench.store,
            bench.figure_key_parts(cell, **_task_key(task), alone=alone),
            task.batches,
            lambda batch: _numbers(entry, task.card.metric, task.ask(batch, alone=alone)),
            begin=apply_recipe,
            decided=(lambda _: False) if cell.role == "baseline" else partly,
            on_progress=self._seen(cell.id, gate, task.batches),
        )
        evidence.zero_shot[entry.task] = figure(taken.items).model_copy(update={"key": taken.key})
        self._signed(evidence, gate, taken)

    def perplexity_again(self, evidence: CellEvidence, entry: TierPerplexity) -> None:
        """Repeat the uncompressed model's perplexity with another attention kernel, one window a pass."""
        bench, text, gate = self._bench, self._text(entry), f"perplexity:{entry.corpus}"
        some = [[index] for batch in text.batches for index in batch][:_REPEATED_WINDOWS]
        bench.undo()
        with another_kernel(bench.loaded) as kernel:
            variation = "; ".join(part for part in (kernel, "one window a pass") if part)
            what = {"measured": "A/A", "variation": variation, **_text_key(text), **bench.identity}
            seen = self._seen(evidence.id, f"noise:{gate}", some)
            taken = measure_batches(bench.store, {**what, "repeated": len(some)}, some, text.score, on_progress=seen)
        known = evidence.perplexity[entry.corpus]
        nll = known.by_window(known.nll)
        pairs = [(nll[item["window"]], float(item["nll"])) for item in taken.items]
        figures = [math.exp(statistics.fmean(side)) for side in zip(*pairs, strict=True)]
        evidence.noise[gate] = _noise(variation, pairs, reference=figures[0], value=figures[1])

    def zero_shot_again(self, evidence: CellEvidence, entry: TierTask) -> None:
        """Repeat the uncompressed model's answers with another attention kernel, in other batches."""
        bench, task, gate = self._bench, self._task(entry), f"zero-shot:{entry.task}"
        numbers = [number for batch in task.batches for number in batch][:_REPEATED_ITEMS]
        bench.undo()
        with another_kernel(bench.loaded) as kernel:
            variation = "; ".join(part for part in (kernel, f"{len(numbers)} items at once") if part)
            what = {"measured": "A/A", "variation": variation, **_task_key(task), **bench.identity}
            taken = measure_batches(bench.store, {**what, "repeated": len(numbers)}, [numbers], task.ask)
        known = {item["doc_id"]: float(item[task.card.metric]) for item in evidence.zero_shot[entry.task].items}
        pairs = [(known[item["doc_id"]], float(item[task.card.metric])) for item in taken.items]
        figures = [statistics.fmean(side) for side in zip(*pairs, strict=True)]
        evidence.noise[gate] = _noise(variation, pairs, reference=figures[0], value=figures[1])

    def _seen(self, cell: str, stage: str, batches: Sequence[Sequence[int]]) -> Callable[[int], None]:
        planned = sum(map(len, batches))
        return lambda done: self._watch(Step(cell, stage, done, planned))

    def _signed(self, evidence: CellEvidence, gate: str, taken: Measured) -> None:
        self._bench.set_cell_key(evidence)
        if taken.since:
            evidence.reused[gate] = taken.since

    def _text(self, entry: TierPerplexity) -> PreparedText:
        if entry not in self._texts:
            bench = self._bench
            # in a mixture, experts see the tokens of a whole batch at once, and so would a scale over their inputs
            mixture = any(weight.experts for weight in bench.loaded.architecture.linear_weights)
            look = _LOOK_TOKENS.get(bench.loaded.device.type, _LOOK_TOKENS["cuda"])
            self._texts[entry] = PreparedText(
                bench.scorer,
                bench.tokens(entry.corpus),
                window=entry.window,
                windows=entry.windows,
                batch_tokens=None if mixture else look,
                name=f"corpus '{entry.corpus}'",
            )
        return self._texts[entry]

    def _task(self, entry: TierTask) -> PreparedTask:
        if entry not in self._tasks:
            bench = self._bench
            bench.undo()
            card = bench.library.tasks[entry.task]
            self._tasks[entry] = prepare_task(bench.loaded, card, bench.cache, limit=entry.limit, scorer=bench.scorer)
        return self._tasks[entry]


def _text_key(text: PreparedText) -> dict[str, Any]:
    batch = len(text.batches[0])
    window = text.tokens_wt.shape[1]
    return {
        "measured": "perplexity", "protocol": PROTOCOL, "tokens": text.tokens_sha256, "window": window, "batch": batch,
    }  # fmt: skip


def _task_key(task: PreparedTask) -> dict[str, Any]:
    return {"measured": "zero-shot", "task": task.card.task, "content": task.content, "batch": len(task.batches[0])}


def _changes_head(bench: ModelUnderRecipe, touched: set[str]) -> bool:
    """Whether a recipe changes what turns the body's states into logits."""
    head = bench.loaded.model.get_output_embeddings()
    if head is None:
        return False
    names = {name for name, module in bench.loaded.model.named_modules() if module is head}
    weights = {name for name, parameter in bench.loaded.model.named_parameters() if parameter is head.weight}
    return bool(touched & (names | weights))


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


def _needs_a_row_of_its_own(method: Method) -> bool:
    """Whether a recipe takes one scale over everything that stands in a row: answers must not share one then."""
    return getattr(method, "activations", None) == "tensor" or bool(getattr(method, "attention_matmuls", False))
