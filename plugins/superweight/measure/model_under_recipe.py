"""One model on the bench: loaded once, recipes applied and undone in place, integrity inspected."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch

from superweight.cards import Cell, Coordinate, Library, ModelCard, RecipeCard
from superweight.checkpoint import Cache, load_model, resolve
from superweight.checkpoint.bits import bits, hexadecimal
from superweight.compress import Applied, Context, apply
from superweight.detect import LayerPeaks as DetectedPeaks
from superweight.detect import Thresholds, detect, layer_peaks
from superweight.errors import InfraError
from superweight.evaluate import PROTOCOL, Scorer, corpus_tokens
from superweight.evidence import CellEvidence, Coverage, LayerPeaks, Sanity, Size, Store, StoredWeight, content_key
from superweight.measure.batches import measure_once
from superweight.measure.environment import environment
from superweight.measure.fingerprint import fingerprints, non_finite
from superweight.measure.keys import environment_key, settings_files

_VALUE_TOLERANCE = 0.02  # published values are printed to two or three digits, some from another dtype


class ModelUnderRecipe:
    """A loaded model with at most one recipe applied.

    Args:
        card: the model.
        library: all cards.
        cache: where checkpoints and data are kept.
        device: where it runs.
        dtype: arithmetic of forward passes; the card's, else the checkpoint's own, if not given.
        store: where measurements are written down as they are taken; None to keep none.

    Raises:
        InfraError: the checkpoint cannot be had, read or loaded.

    """

    def __init__(
        self,
        card: ModelCard,
        library: Library,
        cache: Cache,
        *,
        device: str,
        dtype: str | None,
        store: Store | None = None,
    ) -> None:
        self.card = card
        self.library = library
        self.cache = cache
        self.store = store
        self.checkpoint = resolve(card.source, cache)
        self.loaded = load_model(self.checkpoint, device=device, compute_dtype=dtype or card.compute_dtype)
        self.scorer = Scorer(self.loaded)
        self.scorer.begin_with(list(self.loaded.architecture.layers))
        self._tokens: dict[str, torch.Tensor] = {}
        self._applied: tuple[str, Applied] | None = None
        self._spoiled: InfraError | None = None
        self._detected_before = ""  # when, if detection was found in the store

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The parts of every key that say which model is measured, with what."""
        return {
            "content_hash": self.checkpoint.content_hash,
            "dtype": str(self.loaded.dtype).removeprefix("torch."),
            "compute_dtype": str(self.loaded.compute_dtype).removeprefix("torch."),
            "tokenizer": _tokenizer_hash(self.loaded.tokenizer),
            "files": settings_files(self.checkpoint.directory),
            "generation": str(getattr(self.loaded.model, "generation_config", "")),
            **environment_key(self.loaded.device),
        }

    @cached_property
    def detection(self) -> dict[str, Any]:
        """Super weights and activations, as `Detection.as_dict`; found on the uncompressed model."""
        known = [weight.model_dump(mode="json") for weight in self.card.super_weights]
        what = {"measured": "detection", "known": known, "settings": asdict(Thresholds()), **self.identity}
        found, taken = measure_once(self.store, what, self._detect)
        self._detected_before = taken.since
        return found

    @cached_property
    def protected(self) -> dict[Coordinate, tuple[str, str, torch.Tensor]]:
        """Every super weight of the card and of detection: status, who named it, its value before any recipe.

        Weights that the card only lists are among them; those that it calls inert are not.
        """
        named: dict[Coordinate, tuple[str, str]] = {
            weight.coordinate: (weight.status, "card") for weight in self.card.super_weights if weight.status != "inert"
        }
        for found in self.detection["super_weights"]:
            if found["status"] in ("causal", "spoke"):
                where = Coordinate(**{name: found[name] for name in ("layer", "expert", "row", "column")})
                named[where] = (found["status"], "card and detection" if where in named else "detection")
        self.undo()
        scalar = self.loaded.architecture.scalar
        return {where: (*who, scalar(where).cpu().clone()) for where, who in named.items()}

    def figure_key_parts(self, cell: Cell, **measured: Any) -> dict[str, Any]:
        """Everything that a figure of a cell depends on, for its key."""
        method = self.recipe(cell).method
        corpus = getattr(method, "calibration_corpus", None)
        return {
            **measured,
            "recipe": method.model_dump(mode="json"),
            "protected": [str(where) for where in self.protected],
            "compressed": self._compressed,
            "calibration": hashlib.sha256(self.tokens(corpus).numpy().tobytes()).hexdigest() if corpus else None,
            **self.identity,
        }

    def recipe(self, cell: Cell) -> RecipeCard:
        """The cell's recipe; of a control that has no super weight to change, what stands in for it."""
        card = cell.recipe
        if card.stand_in is None or self.protected:
            return card
        return card.model_copy(update={"method": card.stand_in})

    @cached_property
    def _compressed(self) -> str:
        """Hash of which parameters a recipe takes for linear weights, and of how they are laid out."""
        weights = self.loaded.architecture.linear_weights
        layout = [(weight.name, weight.shape, weight.experts, weight.transposed) for weight in weights]
        return hashlib.sha256(repr(layout).encode()).hexdigest()

    def _coverage(self) -> Coverage:
        return Coverage.model_validate(self.loaded.architecture.coverage.as_dict())

    def detect_into(self, evidence: CellEvidence) -> None:
        """Detection, and the card's claim beside it."""
        self.describe(evidence)
        found = self.detection
        claims = {weight.key: weight for weight in self.card.super_weights}
        weights = [dict(weight) for weight in found["super_weights"]]
        for weight in weights:
            claim = claims.get(
                (weight["layer"], -1 if weight["expert"] is None else weight["expert"], weight["row"], weight["column"])
            )
            if claim is not None and claim.value is not None:
                off = abs(weight["value"] - claim.value)
                weight["value_differs"] = off > _VALUE_TOLERANCE * abs(claim.value)
        card = [weight.model_dump(mode="json") for weight in self.card.super_weights]
        evidence.detection = {**found, "super_weights": weights, "card": card, "known": self.card.known}
        evidence.peaks = [LayerPeaks.model_validate(peaks) for peaks in found["peaks"]]
        evidence.super_weights = [self._stored(where, value) for where, (_, _, value) in self.protected.items()]
        total = sum(p.numel() for p in self.loaded.model.parameters())
        width = float(8 * self.loaded.dtype.itemsize)
        if self._detected_before:
            evidence.reused["detection"] = self._detected_before
        figures = {"compressed_bits_per_weight": width, "model_bits_per_weight": width, "parameters": total}
        evidence.size = Size.model_validate(figures)
        evidence.coverage = self._coverage()

    def inspect_into(self, cell: Cell, evidence: CellEvidence) -> None:
        """What the recipe changed, what it did to the super weights, and what it costs in bits."""
        self.describe(evidence, cell)
        found, taken = measure_once(
            self.store, self.figure_key_parts(cell, measured="sanity and peaks"), lambda: self._inspect(cell)
        )
        evidence.sanity = Sanity.model_validate(found["sanity"])
        evidence.peaks = [LayerPeaks.model_validate(peaks) for peaks in found["peaks"]]
        evidence.recipe_figures = found["recipe_figures"]
        evidence.size = Size.model_validate(found["size"])
        evidence.super_weights = [StoredWeight.model_validate(weight) for weight in found["super_weights"]]
        evidence.coverage = self._coverage()
        if taken.since:
            evidence.reused["sanity"] = taken.since

    def apply(self, cell: Cell) -> Applied:
        """Bring the model into the state that the cell's recipe makes, undoing another's first."""
        if self._applied is None or self._applied[0] != cell.recipe.id:
            super_weights = tuple(self.protected)
            self.undo()
            self._original  # noqa: B018 - taken before the first change, for undo to check against
            context = Context(self.loaded, super_weights, calibration=self._calibration)
            self._applied = (cell.recipe.id, apply(self.recipe(cell), context))
            self._begin(_first_layer(self.loaded.architecture.prefix, self._applied[1]))
        return self._applied[1]

    def undo(self) -> None:
        """Bring the uncompressed model back.

        Raises:
            InfraError: a recipe could not be undone to the last bit, now or before: no figure may be taken from this
                model any more.
        """
        if self._spoiled is not None:
            raise self._spoiled
        if self._applied is not None:
            self._begin(0)
            (_, applied), self._applied = self._applied, None
            try:
                applied.undo()
                self._check_undone(applied)
            except Exception as error:
                self._spoiled = InfraError(f"the model could not be restored after a recipe: {error}", reason="crash")
                raise self._spoiled from error

    def tokens(self, corpus: str) -> torch.Tensor:
        """A corpus as token ids `(tokens,)`, int64, on the CPU."""
        if corpus not in self._tokens:
            self._tokens[corpus] = corpus_tokens(self.loaded, self.library.corpora[corpus], self.cache)
        return self._tokens[corpus]

    def describe(self, evidence: CellEvidence, cell: Cell | None = None) -> None:
        """Say of a cell what was measured on what."""
        if evidence.checkpoint:
            return
        if cell is not None and cell.recipe.stand_in is not None:
            method = self.recipe(cell).method.model_dump(mode="json")
            evidence.stands_in = evidence.recipe_parameters["kind"] if method != evidence.recipe_parameters else ""
            evidence.recipe_parameters = method
        names = ("content_hash", "dtype", "compute_dtype")
        evidence.checkpoint = {
            "origin": self.checkpoint.origin,
            **{name: self.identity[name] for name in names},
            "evaluation": str(self.scorer.sharing),
            "slow": self.scorer.sharing.why_not,
            "note": self.card.note,
            "account": self.loaded.account.as_dict() if self.loaded.account else None,
            "loading": self.loaded.account.lines if self.loaded.account else [],
            "environment": environment(self.loaded.device),
        }
        self.set_cell_key(evidence)

    def set_cell_key(self, evidence: CellEvidence) -> None:
        """Give a cell its key: model, recipe, protocol, code and libraries, and the key of each of its figures."""
        recipe = evidence.recipe_parameters
        figures = {name: figure.key for name, figure in evidence.perplexity.items()}
        figures |= {name: figure.key for name, figure in evidence.zero_shot.items()}
        evidence.key = content_key(recipe=recipe, protocol=PROTOCOL, figures=figures, **self.identity)

    @cached_property
    def _original(self) -> dict[str, str]:
        self.undo()
        return fingerprints(self.loaded.model)

    def _check_undone(self, applied: Applied) -> None:
        now = fingerprints(self.loaded.model, applied.rewritten)
        differing = [name for name, found in now.items() if found != self._original[name]]
        if differing:
            names = ", ".join(differing[:8]) + (", …" if len(differing) > 8 else "")
            raise InfraError(f"{len(differing)} parameters are not what they were: {names}", reason="crash")

    def _detect(self) -> dict[str, Any]:
        self.undo()
        return detect(self.loaded, known=self.card.super_weights).as_dict()

    def _inspect(self, cell: Cell) -> dict[str, Any]:
        before = self._original
        applied = self.apply(cell)
        after = fingerprints(self.loaded.model)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        declared = sorted(applied.rewritten)
        sanity = Sanity(
            declared=declared,
            changed=changed,
            undeclared=sorted(set(changed) - set(declared)),
            unchanged=sorted(set(declared) - set(changed)),
            hooks=sorted(applied.hooks),
            non_finite=non_finite(self.loaded.model),
        )
        stored = [self._stored(where, applied.stored(where)) for where in self.protected]
        return {
            "sanity": sanity.model_dump(),
            "recipe_figures": _named_by_strings(applied.figures),
            "size": applied.size.as_dict(),
            "super_weights": [weight.model_dump() for weight in stored],
            "peaks": [asdict(peaks) for peaks in self._peaks()],
        }

    def _peaks(self) -> Sequence[DetectedPeaks]:
        try:
            return layer_peaks(self.loaded)
        except InfraError:  # a wrecked model, or one that cannot be watched: a picture is missing, no figure is
            return ()

    def _begin(self, layer: int) -> None:
        """Let forward passes begin at a layer, all before it being as the checkpoint has them."""
        if self.scorer.layer_inputs is not None:
            self.scorer.layer_inputs.first = layer

    def _calibration(self, corpus: str, windows: int, window: int) -> torch.Tensor:
        """Token windows `(windows, window)` from the end of a corpus, away from those perplexity is measured on."""
        tokens = self.tokens(corpus)
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


def _first_layer(layers: str, applied: Applied) -> int:
    """The first decoder layer that a recipe touches; 0 if it touches anything else, or nothing.

    A recipe that touches nothing is a control of the measurement, which must not be spared.
    """
    touched = [*applied.rewritten, *applied.hooks]
    if not all(name.startswith(f"{layers}.") for name in touched):
        return 0
    return min((int(name.removeprefix(f"{layers}.").partition(".")[0]) for name in touched), default=0)


def _tokenizer_hash(tokenizer: Any) -> str:
    """sha256 of everything a tokenizer does: the same text may give other tokens from the same checkpoint."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else str(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(f"{rules}{tokenizer.special_tokens_map}{tokenizer.chat_template}".encode()).hexdigest()


def _named_by_strings(figures: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(name): _named_by_strings(value) if isinstance(value, Mapping) else value for name, value in figures.items()
    }
