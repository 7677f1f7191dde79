"""One model on the bench: loaded once, recipes applied and undone in place, figures taken."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from superweight.cards import Cell, Coordinate, Library, ModelCard, TierPerplexity, TierTask
from superweight.cards.recipe import Method
from superweight.checkpoint import Cache, load_model, resolve
from superweight.checkpoint.bits import bits, hexadecimal
from superweight.compress import Applied, Context, apply
from superweight.detect import Detection, detect
from superweight.errors import InfraError
from superweight.evaluate import PROTOCOL, PreparedTask, Scorer, corpus_tokens, perplexity, prepare_task
from superweight.evidence import CellEvidence, Perplexity, Sanity, Size, StoredWeight, ZeroShot, content_key
from superweight.measure.environment import environment
from superweight.measure.fingerprint import fingerprints, non_finite

_VALUE_TOLERANCE = 0.02  # published values are printed to two or three digits, some from another dtype


class ModelBench:
    """A loaded model with at most one recipe applied.

    Raises:
        InfraError: the checkpoint cannot be had, read or loaded.

    """

    def __init__(self, card: ModelCard, library: Library, cache: Cache, *, device: str, dtype: str | None) -> None:
        self.card = card
        self.library = library
        self.cache = cache
        self.checkpoint = resolve(card.source, cache)
        self.loaded = load_model(self.checkpoint, device=device, compute_dtype=dtype or card.compute_dtype)
        self.scorer = Scorer(self.loaded)
        self._tokens: dict[str, torch.Tensor] = {}
        self._tasks: dict[tuple[str, int | None], PreparedTask] = {}
        self._applied: tuple[str, Applied] | None = None
        self._spoiled: InfraError | None = None

    @cached_property
    def detection(self) -> Detection:
        """Super weights and activations; found on the uncompressed model."""
        self._undo()
        return detect(self.loaded, known=self.card.super_weights)

    @cached_property
    def _original(self) -> dict[str, tuple[int, int]]:
        self._undo()
        return fingerprints(self.loaded.model)

    @cached_property
    def protected(self) -> dict[Coordinate, tuple[str, str, torch.Tensor]]:
        """Every super weight of the card and of detection: status, who named it, its value before any recipe.

        Weights that the card only lists are among them; those that it calls inert are not.
        """
        self._undo()
        named: dict[Coordinate, tuple[str, str]] = {
            weight.coordinate: (weight.status, "card") for weight in self.card.super_weights if weight.status != "inert"
        }
        for found in self.detection.super_weights:
            if found.status in ("causal", "spoke"):
                origin = "card and detection" if found.coordinate in named else "detection"
                named[found.coordinate] = (found.status, origin)
        scalar = self.loaded.architecture.scalar
        return {where: (*who, scalar(where).cpu().clone()) for where, who in named.items()}

    def detect_into(self, evidence: CellEvidence) -> None:
        """Detection, and the card's claim beside it."""
        self._describe(evidence)
        found = self.detection.as_dict()
        claims = {weight.key: weight for weight in self.card.super_weights}
        for weight in found["super_weights"]:
            claim = claims.get(
                (weight["layer"], -1 if weight["expert"] is None else weight["expert"], weight["row"], weight["column"])
            )
            if claim is not None and claim.value is not None:
                off = abs(weight["value"] - claim.value)
                weight["value_differs"] = off > _VALUE_TOLERANCE * abs(claim.value)
        card = [weight.model_dump(mode="json") for weight in self.card.super_weights]
        evidence.detection = {**found, "card": card, "known": self.card.known}
        evidence.super_weights = [self._stored(where, value) for where, (_, _, value) in self.protected.items()]
        total = sum(p.numel() for p in self.loaded.model.parameters())
        width = float(8 * self.loaded.dtype.itemsize)
        figures = {"compressed_bits_per_weight": width, "model_bits_per_weight": width, "parameters": total}
        evidence.size = Size.model_validate(figures)

    def inspect_into(self, cell: Cell, evidence: CellEvidence) -> None:
        """What the recipe changed, what it did to the super weights, and what it costs in bits."""
        self._describe(evidence)
        before = self._original
        protected = self.protected
        applied = self._apply(cell)
        after = fingerprints(self.loaded.model)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        declared = sorted(applied.rewritten)
        evidence.sanity = Sanity(
            declared=declared,
            changed=changed,
            undeclared=sorted(set(changed) - set(declared)),
            unchanged=sorted(set(declared) - set(changed)),
            hooks=sorted(applied.hooks),
            non_finite=non_finite(self.loaded.model),
        )
        evidence.recipe_figures = applied.figures
        evidence.size = Size.model_validate(applied.size.as_dict())
        evidence.super_weights = [self._stored(where, applied.stored(where)) for where in protected]

    def perplexity_into(self, cell: Cell, evidence: CellEvidence, entry: TierPerplexity) -> None:
        """Perplexity under the cell's recipe."""
        self._describe(evidence)
        card = self.library.corpora[entry.corpus]
        if entry.corpus not in self._tokens:
            self._tokens[entry.corpus] = corpus_tokens(self.loaded, card, self.cache)
        applied = self._apply(cell)
        mixture = any(weight.experts for weight in self.loaded.architecture.linear_weights)
        one_by_one = mixture and bool(applied.hooks)  # experts see the tokens of a whole batch at once
        found = perplexity(
            self.loaded,
            self._tokens[entry.corpus],
            window=entry.window,
            windows=entry.windows,
            batch_tokens=None if one_by_one else self.scorer.batch_tokens,
            scorer=self.scorer,
        )
        evidence.perplexity[entry.corpus] = Perplexity(corpus=entry.corpus, origin=str(card.source), **found.as_dict())

    def zero_shot_into(self, cell: Cell, evidence: CellEvidence, entry: TierTask) -> None:
        """One task under the cell's recipe."""
        self._describe(evidence)
        known = (entry.task, entry.limit)
        if known not in self._tasks:
            self._undo()
            card = self.library.tasks[entry.task]
            self._tasks[known] = prepare_task(self.loaded, card, self.cache, limit=entry.limit, scorer=self.scorer)
        self._apply(cell)
        alone = _needs_a_row_of_its_own(cell.recipe.method)
        figure = ZeroShot.model_validate(self._tasks[known].measure(alone=alone).as_dict())
        scores = [item.get(figure.metric) for item in figure.items]
        odd = [score for score in scores if not isinstance(score, int | float)]
        if odd:
            raise InfraError(
                f"task card '{entry.task}': metric '{figure.metric}' has no number for each item (found {odd[0]!r}), "
                "so it cannot be compared item by item. Choose one that is a mean over items, such as acc.",
                reason="unsupported",
            )
        evidence.zero_shot[entry.task] = figure

    def _apply(self, cell: Cell) -> Applied:
        if self._applied is None or self._applied[0] != cell.recipe.id:
            super_weights, activations = tuple(self.protected), self.detection.super_activations
            self._undo()
            context = Context(self.loaded, super_weights, activations, self._calibration)
            self._applied = (cell.recipe.id, apply(cell.recipe, context))
        return self._applied[1]

    def _undo(self) -> None:
        if self._spoiled is not None:
            raise self._spoiled
        if self._applied is not None:
            (_, applied), self._applied = self._applied, None
            try:
                applied.undo()
            except Exception as error:  # half restored: no figure may be taken from this model any more
                self._spoiled = InfraError(f"the model could not be restored after a recipe: {error}", reason="crash")
                raise self._spoiled from error

    def _calibration(self, corpus: str, windows: int, window: int) -> torch.Tensor:
        """Token windows `(windows, window)` from the end of a corpus, away from those perplexity is measured on."""
        if corpus not in self._tokens:
            self._tokens[corpus] = corpus_tokens(self.loaded, self.library.corpora[corpus], self.cache)
        tokens = self._tokens[corpus]
        if tokens.numel() < windows * window:
            raise InfraError(
                f"calibration on '{corpus}' needs {windows} windows of {window} tokens and the corpus has "
                f"{tokens.numel()} tokens. Use a longer text or fewer windows.",
                reason="too-short",
            )
        return tokens[-windows * window :].view(windows, window)

    def _stored(self, where: Coordinate, stored: torch.Tensor) -> StoredWeight:
        status, origin, original = self.protected[where]
        return StoredWeight(
            **where.model_dump(),
            status=status,
            origin=origin,
            dtype=str(stored.dtype).removeprefix("torch."),
            original=float(original),
            original_bits=hexadecimal(original),
            stored=float(stored),
            stored_bits=hexadecimal(stored),
            survived=original.dtype == stored.dtype and bits(original) == bits(stored),
        )

    def _describe(self, evidence: CellEvidence) -> None:
        if evidence.checkpoint:
            return
        machine = environment(self.loaded.device)
        what: dict[str, Any] = {
            "origin": self.checkpoint.origin,
            "content_hash": self.checkpoint.content_hash,
            "dtype": str(self.loaded.dtype).removeprefix("torch."),
            "compute_dtype": str(self.loaded.compute_dtype).removeprefix("torch."),
            "note": self.card.note,
        }
        evidence.checkpoint = {**what, "environment": machine}
        evidence.key = content_key(**what, recipe=evidence.recipe_parameters, protocol=PROTOCOL, environment=machine)


def _needs_a_row_of_its_own(method: Method) -> bool:
    """Whether a recipe takes one scale over everything that stands in a row: answers must not share one then."""
    return getattr(method, "activations", None) == "tensor" or bool(getattr(method, "attention_matmuls", False))
