"""Perplexity by the protocol of GPTQ, and the divergence from another model's next-token distribution on the way."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from superweight.errors import InfraError
from superweight.evaluate.order import batched, visiting_order
from superweight.forward.scorer import Progress, Scorer
from superweight.forward.soundness import check_tokens, check_window

if TYPE_CHECKING:
    from superweight.checkpoint.loading import LoadedModel

_LEFT_TO_CALIBRATION = 10  # one window in so many, at the end of the text

PROTOCOL = "gptq: one tokenisation, non-overlapping windows, no stride, exp of the mean nll a token"


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of a token sequence, as in Frantar et al. 2022 (GPTQ, §4, and the authors' code).

    Attributes:
        value: exp of the mean of `nll`; infinity if the model gives NaN anywhere.
        nll: mean negative log-likelihood of each window, nats a token, in the order of the text.
        index: which window of the text each is; all of them unless the measurement stopped early.
        kl: of each window, the mean Kullback-Leibler divergence from the reference model's next-token distribution,
            nats a token; empty if there was no reference.
        agreement: of each window, the share of tokens on which both rank the same token first; empty likewise.
        tokens: how many tokens were predicted: windows × (window − 1).
        window: tokens a window.
        windows: how many windows were measured.
        planned: how many would have been without stopping early.
        protocol: how it was measured.
        tokens_sha256: of the token ids of all planned windows as little-endian int64, so that two figures can be told
            to be of the same tokens.
        vocabulary: tokens that the model chooses among, which is the perplexity of guessing.
    """

    value: float
    nll: tuple[float, ...]
    index: tuple[int, ...]
    kl: tuple[float, ...]
    agreement: tuple[float, ...]
    tokens: int
    window: int
    windows: int
    planned: int
    protocol: str
    tokens_sha256: str
    vocabulary: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


class PreparedText:
    """A corpus cut into windows, to be scored a batch at a time under one recipe after another.

    The batches are fixed: whoever scores one gets the same figures, whatever was scored before it.

    Args:
        scorer: of the model.
        token_ids: `(tokens,)`, tokenised once as a whole. A last window that is not full is dropped.
        window: tokens a window, at least 2.
        windows: only so many; fewer are used if there are no more. All if not given.
        batch_tokens: tokens a batch; how many of them share a forward pass is up to the scorer. One window if not
            given, as GPTQ does: recipes whose rounding depends on a whole activation tensor give other figures in other
            batches.
        shuffled: whether windows are drawn from all over the text, so that any of them stand for the whole and few are
            neighbours, which are alike; the last tenth is left to calibration if not all are wanted. Else they are the
            first, in their order.
        name: of the text, for messages.

    Raises:
        InfraError: there are fewer tokens than one window (`too-short`), the window is longer than the model was made
            for, or the text has a token without an embedding (`unsupported`).
    """

    def __init__(
        self,
        scorer: Scorer,
        token_ids: torch.Tensor,
        *,
        window: int,
        windows: int | None = None,
        batch_tokens: int | None = None,
        shuffled: bool = True,
        name: str = "the corpus",
    ) -> None:
        self.scorer = scorer
        self.tokens_wt = _cut(token_ids, window, name)  # (windows of the whole text, window)
        check_window(scorer.loaded.model, window)
        check_tokens(scorer.loaded, self.tokens_wt, name)
        order = _drawn(len(self.tokens_wt), windows) if shuffled else list(range(len(self.tokens_wt)))[:windows]
        self.planned = len(order)
        self.batches = batched(order, (batch_tokens or window) // window)
        tokens = self.tokens_wt[sorted(order)].cpu().numpy()
        self.tokens_sha256 = hashlib.sha256(tokens.astype("<i8").tobytes()).hexdigest()
        self._reference: dict[int, torch.Tensor] = {}  # states of the reference model by window, on the CPU

    @property
    def remembered(self) -> bool:
        """Whether the reference model's states are known for every window."""
        return len(self._reference) == self.planned

    def remember(self) -> None:
        """Take the model as it is now as the reference; one forward pass of its body over every window."""
        for batch in self.batches:
            if any(index not in self._reference for index in batch):
                self._keep(batch, self.scorer.window_states(self.tokens_wt[batch]))

    def score(self, batch: Sequence[int], *, remember: bool = False, compare: bool = False) -> list[dict[str, Any]]:
        """Score one of `batches` under the model as it is now.

        Args:
            batch: numbers of windows.
            remember: take the model as it is now as the reference.
            compare: measure the divergence from the reference.

        Returns:
            one dictionary a window: `window` and `nll`, and with `compare` also `kl` and `agreement`.
        """
        tokens = self.tokens_wt[list(batch)]
        states = self.scorer.window_states(tokens)
        if remember:
            self._keep(batch, states)
        found: dict[str, Sequence[Any]] = {"window": batch}
        if compare:
            reference = torch.stack([self._reference[index] for index in batch])
            found["nll"], found["kl"], found["agreement"] = self.scorer.compared(tokens, states, reference)
        else:
            found["nll"] = self.scorer.nll_of(tokens, states)
        return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]

    def figure(self, scores: Sequence[dict[str, Any]]) -> Perplexity:
        """The figure from what `score` returned for some of the windows; at least one."""
        scores = sorted(scores, key=lambda score: int(score["window"]))
        nll = tuple(float(score["nll"]) for score in scores)
        window = self.tokens_wt.shape[1]
        return Perplexity(
            value=_exp(math.fsum(nll) / len(nll)),
            nll=nll,
            index=tuple(int(score["window"]) for score in scores),
            kl=tuple(float(score["kl"]) for score in scores if "kl" in score),
            agreement=tuple(float(score["agreement"]) for score in scores if "agreement" in score),
            tokens=len(nll) * (window - 1),
            window=window,
            windows=len(nll),
            planned=self.planned,
            protocol=PROTOCOL,
            tokens_sha256=self.tokens_sha256,
            vocabulary=self.scorer.language_model.vocabulary,
        )

    def _keep(self, batch: Sequence[int], states: torch.Tensor) -> None:
        self._reference.update(zip(batch, states.cpu(), strict=True))


def perplexity(
    loaded: LoadedModel,
    token_ids: torch.Tensor,
    *,
    window: int,
    windows: int | None = None,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
    scorer: Scorer | None = None,
    name: str = "the corpus",
) -> Perplexity:
    """Measure perplexity on non-overlapping windows, in the order of the text.

    A model that gives NaN or infinity is not an error of the measurement: those windows count as infinity, and so
    does the perplexity, which no gate lets pass.

    Args:
        loaded: the model, with whatever a recipe has done to it.
        token_ids: as in `PreparedText`, like `window`, `windows` and `batch_tokens`.
        window: tokens a window.
        windows: how many at most.
        batch_tokens: tokens a batch.
        progress: called with windows done and windows in all.
        scorer: kept from an earlier call, to save finding out again how the model can be run.
        name: of the text, for messages.

    Raises:
        InfraError: there are fewer tokens than one window (`too-short`).
    """
    if windows is not None and windows < 1:
        raise ValueError(f"expected at least 1 window, found {windows}")
    _cut(token_ids, window, name)  # told before the model is tried
    text = PreparedText(
        scorer or Scorer(loaded),
        token_ids,
        window=window,
        windows=windows,
        batch_tokens=batch_tokens,
        shuffled=False,
        name=name,
    )
    scores: list[dict[str, Any]] = []
    for batch in text.batches:
        scores += text.score(batch)
        if progress:
            progress(len(scores), text.planned)
    return text.figure(scores)


def _drawn(available: int, wanted: int | None) -> list[int]:
    """Numbers of windows in the order they are visited."""
    if wanted is None or wanted >= available:
        return visiting_order(available)
    return visiting_order(max(wanted, available - available // _LEFT_TO_CALIBRATION))[:wanted]


def _cut(token_ids: torch.Tensor, window: int, name: str) -> torch.Tensor:
    if window < 2:
        raise ValueError(f"expected a window of at least 2 tokens, found {window}")
    available = token_ids.numel() // window
    if not available:
        raise InfraError(
            f"{name} has {token_ids.numel()} tokens, fewer than one window of {window}. "
            "Use a longer text or a shorter window.",
            reason="too-short",
        )
    return token_ids.flatten()[: available * window].view(available, window)


def _exp(nll: float) -> float:
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf
