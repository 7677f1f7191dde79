"""The uncompressed model of a card: loaded once, its super weights found, its texts tokenised, recipes tried on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import Any, NamedTuple

import torch

from superweight.cards import Cell, Coordinate, Library, ModelCard, RecipeCard
from superweight.checkpoint import Cache, load_model, resolve
from superweight.checkpoint.bits import hexadecimal
from superweight.detect import Thresholds, detect
from superweight.errors import InfraError
from superweight.evaluate import corpus_tokens
from superweight.evidence import DetectionEvidence, Store
from superweight.forward.runner import Scalar
from superweight.measure.batches import measure_once
from superweight.measure.environment import environment
from superweight.measure.keys import environment_key, settings_files
from superweight.measure.model_in_memory import ModelInMemory

ReferenceStep = Callable[[str, int, int], None]
"""Told the stage of a preparation, how much of it is done and how much there is."""


class ProtectedWeight(NamedTuple):
    """A super weight: its status, who named it, and what the checkpoint holds."""

    status: str
    origin: str
    original: Scalar


class Reference:
    """What every cell of a model is compared with, and what its runners are given.

    Args:
        card: the model.
        library: all cards.
        cache: where checkpoints and data are kept.
        device: where it runs.
        dtype: arithmetic of forward passes; the card's, else the checkpoint's own, if not given.
        store: where measurements are written down as they are taken; None to keep none.
        step: told how far a preparation is that takes long: stage, done, planned.

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
        step: ReferenceStep = lambda stage, done, planned: None,
    ) -> None:
        self.card = card
        self.library = library
        self.cache = cache
        self.store = store
        self.step = step
        self.checkpoint = resolve(card.source, cache)
        self.loaded = load_model(self.checkpoint, device=device, compute_dtype=dtype or card.compute_dtype)
        self.memory = ModelInMemory(self.loaded)
        self.detected_before = ""
        """When detection was measured, if it was found in the store."""
        self._tokens: dict[str, torch.Tensor] = {}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The parts of every key that say which model is measured, with what."""
        return {
            "content_hash": self.checkpoint.content_hash,
            "dtype": _name(self.loaded.dtype),
            "compute_dtype": _name(self.loaded.compute_dtype),
            "tokenizer": _tokenizer_hash(self.loaded.tokenizer),
            "files": settings_files(self.checkpoint.directory),
            "generation": str(getattr(self.loaded.model, "generation_config", "")),
            **environment_key(self.loaded.device),
        }

    @cached_property
    def about(self) -> dict[str, Any]:
        """What the report says of the model, and of how it is run in memory."""
        sharing, account = self.memory.model.scorer.sharing, self.loaded.account
        return {
            "origin": self.checkpoint.origin,
            **{name: self.identity[name] for name in ("content_hash", "dtype", "compute_dtype")},
            "evaluation": str(sharing),
            "slow": sharing.why_not,
            "note": self.card.note,
            "account": account.as_dict() if account else None,
            "loading": account.lines if account else [],
            "environment": environment(self.loaded.device),
        }

    @cached_property
    def detection(self) -> DetectionEvidence:
        """Super weights and activations, found on the uncompressed model; nothing yet of the card's claim."""
        known = [weight.model_dump(mode="json") for weight in self.card.super_weights]
        parts = {"measured": "detection", "known": known, "settings": asdict(Thresholds()), **self.identity}
        found, measured = measure_once(self.store, parts, self._detect)
        self.detected_before = measured.since
        return DetectionEvidence.model_validate(found)

    @cached_property
    def protected(self) -> dict[Coordinate, ProtectedWeight]:
        """Every super weight of the card and of detection.

        Weights that the card only lists are among them; those that it calls inert are not.
        """
        named: dict[Coordinate, tuple[str, str]] = {
            weight.coordinate: (weight.status, "card") for weight in self.card.super_weights if weight.status != "inert"
        }
        for found in self.detection.confirmed:
            where = found.coordinate
            named[where] = (found.status, "card and detection" if where in named else "detection")
        self.memory.undo()
        scalar = self.loaded.architecture.scalar
        return {where: ProtectedWeight(*who, as_scalar(scalar(where))) for where, who in named.items()}

    @cached_property
    def compressible(self) -> str:
        """Hash of which parameters a recipe takes for linear weights, and of how they are laid out."""
        weights = self.loaded.architecture.linear_weights
        layout = [(weight.name, weight.shape, weight.experts, weight.transposed) for weight in weights]
        return hashlib.sha256(repr(layout).encode()).hexdigest()

    def recipe(self, cell: Cell) -> RecipeCard:
        """The cell's recipe; of a control that has no super weight to change, what stands in for it."""
        card = cell.recipe
        if card.stand_in is None or self.protected:
            return card
        return card.model_copy(update={"method": card.stand_in})

    def tokens(self, corpus: str) -> torch.Tensor:
        """A corpus as token ids `(tokens,)`, int64, on the CPU."""
        if corpus not in self._tokens:
            self._tokens[corpus] = corpus_tokens(self.loaded, self.library.corpora[corpus], self.cache)
        return self._tokens[corpus]

    def calibration(self, corpus: str, windows: int, window: int) -> torch.Tensor:
        """Token windows `(windows, window)` from the end of a corpus, away from those perplexity is measured on."""
        tokens = self.tokens(corpus)
        if tokens.numel() < windows * window:
            raise InfraError(
                f"calibration on '{corpus}' needs {windows} windows of {window} tokens and the corpus has "
                f"{tokens.numel()} tokens. Use a longer text or fewer windows.",
                reason="too-short",
            )
        return tokens[-windows * window :].view(windows, window)

    def _detect(self) -> dict[str, Any]:
        self.memory.undo()
        return detect(self.loaded, known=self.card.super_weights).as_dict()


def as_scalar(scalar: torch.Tensor) -> Scalar:
    """A 0-dim tensor as plain data."""
    return Scalar(float(scalar), hexadecimal(scalar.cpu()), _name(scalar.dtype))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _tokenizer_hash(tokenizer: Any) -> str:
    """sha256 of everything a tokenizer does: the same text may give other tokens from the same checkpoint."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else str(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(f"{rules}{tokenizer.special_tokens_map}{tokenizer.chat_template}".encode()).hexdigest()
