"""Zeroing weights and measuring what that does, token by token."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from scipy import stats

from superweight.cards.base import Coordinate
from superweight.checkpoint.loading import LoadedModel
from superweight.forward.language_model import LanguageModel


@contextmanager
def zeroed(loaded: LoadedModel, coordinates: Sequence[Coordinate]) -> Iterator[None]:
    """Zero weights for a while; afterwards every bit is as before, also if the body fails.

    Raises:
        InfraError: a coordinate lies outside its weight; nothing is changed then.

    """
    unique = {coordinate.key: coordinate for coordinate in coordinates}
    scalars = [loaded.architecture.scalar(coordinate) for coordinate in unique.values()]
    kept = [scalar.clone() for scalar in scalars]
    try:
        for scalar in scalars:
            scalar.zero_()
        yield
    finally:
        for scalar, value in zip(scalars, kept, strict=True):
            scalar.copy_(value)


@dataclass(frozen=True)
class Effect:
    """What zeroing did to the text, from paired differences of nll.

    Attributes:
        ratio: perplexity after over perplexity before; infinite if the model gives NaN or overflows.
        interval: two-sided interval of `ratio` that leaves `1 − confidence` on each side.
        nll: float64 `(tokens,)`, of the ablated model.

    """

    ratio: float
    interval: tuple[float, float]
    nll: torch.Tensor


class Ablation:
    """Measures the effect of zeroing weights on one text, remembering what was measured.

    Args:
        loaded: the model.
        windows: token ids `(windows, length)`; the first token of each window is not predicted.
        confidence: one-sided, for intervals.
        block: consecutive tokens that count as one observation.

    """

    def __init__(self, loaded: LoadedModel, windows: torch.Tensor, *, confidence: float, block: int) -> None:
        self._loaded = loaded
        self._windows = windows.to(loaded.device)
        self._confidence = confidence
        self._block = block
        self._language_model = LanguageModel(loaded.model)
        self._known: dict[tuple[tuple[int, ...], ...], Effect] = {}
        self.base_nll = self._nll()

    @property
    def perplexity(self) -> float:
        """Of the untouched model."""
        return _exp(float(self.base_nll.mean()))

    def effect(self, coordinates: Sequence[Coordinate]) -> Effect:
        """Zero weights together, measure, restore."""
        key = tuple(sorted(coordinate.key for coordinate in coordinates))
        if key not in self._known:
            with zeroed(self._loaded, coordinates):
                nll = self._nll()
            low, mean, high = self._compare(nll, self.base_nll)
            self._known[key] = Effect(_exp(mean), (_exp(low), _exp(high)), nll)
        return self._known[key]

    def exceeds(self, one: Effect, other: Effect | None) -> bool:
        """Whether one effect is larger than another (than none, if not given) at the confidence asked for."""
        return self._compare(one.nll, self.base_nll if other is None else other.nll)[0] > 0

    def _nll(self) -> torch.Tensor:
        with self._loaded.arithmetic():
            states = self._language_model.states(self._windows)[:, :-1].flatten(0, 1)
            found, _ = self._language_model.log_likelihoods(states, self._windows[:, 1:].flatten())
        return torch.nan_to_num(-found.double().cpu(), nan=math.inf, posinf=math.inf)

    def _compare(self, nll: torch.Tensor, reference: torch.Tensor) -> tuple[float, float, float]:
        """Lower bound, mean and upper bound of the difference of mean nll, by Student's t over blocks of tokens."""
        if not bool(torch.isfinite(nll).all()) or not bool(torch.isfinite(reference).all()):
            worse = math.inf if bool(torch.isfinite(reference).all()) else 0.0
            return worse, worse, worse
        difference = nll - reference
        whole = len(difference) // self._block * self._block
        blocks = difference[:whole].view(-1, self._block).mean(1)
        mean = float(difference.mean())
        margin = float(stats.t.ppf(self._confidence, len(blocks) - 1)) * float(blocks.std()) / math.sqrt(len(blocks))
        return mean - margin, mean, mean + margin


def _exp(nll: float) -> float:
    return math.exp(nll) if nll < math.log(1e300) else math.inf
