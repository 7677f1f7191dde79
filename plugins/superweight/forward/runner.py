"""What a runner is: the one door through which a model is measured, whoever runs it.

A runner answers for one cell. The resident model answers by applying the cell's recipe in memory; a compressed file, a
served engine or a model read layer by layer answers in its own way. Texts and requests are prepared once, from the
tokenizer of the uncompressed model, and handed to every runner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from superweight.cards.base import Coordinate
    from superweight.evidence.artefact import Finding
    from superweight.evidence.measured import LayerPeaks, Sanity, Size, StoredPoint

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is."""

Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a context and of its continuation."""


@dataclass(frozen=True, eq=False)
class TextWindows:
    """A corpus cut into windows of one length, to be scored a batch at a time.

    Attributes:
        tokens_wt: token ids of every window of the text, `(windows, length)`, int64, on the CPU.
        batches: numbers of the windows that are to be scored, in the order and company in which they are.
        tokens_sha256: of the token ids of those windows in the order of the text, as little-endian int64.
    """

    tokens_wt: torch.Tensor
    batches: Sequence[Sequence[int]]
    tokens_sha256: str

    @property
    def planned(self) -> int:
        """How many windows are to be scored."""
        return sum(map(len, self.batches))


class WindowScore(NamedTuple):
    """One window under one model.

    Attributes:
        nll: mean negative log-likelihood, nats a token; infinity where the model gives NaN.
        kl: mean Kullback-Leibler divergence from the reference's next-token distribution, nats a token; None where the
            runner cannot give it, or was not asked.
        agreement: share of tokens on which both models rank the same one first; None likewise.
    """

    nll: float
    kl: float | None = None
    agreement: float | None = None


class Prompt(NamedTuple):
    """A text to go on from, greedily unless the settings say otherwise.

    Attributes:
        text: the prompt.
        settings: lm-eval's `generation_kwargs`: `until`, `max_gen_toks`, `do_sample`, …
    """

    text: str
    settings: Mapping[str, Any]


class Scalar(NamedTuple):
    """What an artefact holds for one weight: its value, its bits as hexadecimal, and the dtype they are of."""

    value: float
    bits: str
    dtype: str


class CannotTell(NamedTuple):
    """Why a runner does not know."""

    reason: str


@dataclass(frozen=True)
class Inspection:
    """What became of the weights, as far as the runner can tell.

    Attributes:
        sanity: what was changed, and what the recipe says it changes; or why that cannot be told.
        size: bits per weight; or why that cannot be told.
        figures: what the recipe chose or counted on the way, JSON-ready.
        peaks: largest activations by layer; empty where they cannot be traced.
        findings: faults of a file that show without running it.
        unchecked: rules on files that could not be applied, and why.
    """

    sanity: Sanity | CannotTell
    size: Size | CannotTell
    figures: Mapping[str, Any] = field(default_factory=dict)
    peaks: Sequence[LayerPeaks] = ()
    findings: Sequence[Finding] = ()
    unchecked: Mapping[str, str] = field(default_factory=dict)


class Points(NamedTuple):
    """A scalar at every point where a runner can look at it.

    Attributes:
        points: in the order of the model's way: in memory, in the file, after reload.
        disagreement: how file and reload contradict each other; empty if they do not.
    """

    points: Sequence[StoredPoint]
    disagreement: str = ""


class Runner(Protocol):
    """Runs the model of one cell."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What every figure of this cell depends on besides what is asked: hashes, versions, dtype, device class."""

    @property
    def about(self) -> Mapping[str, Any]:
        """What the report says of the model: `origin`, `content_hash`, `dtype`, `compute_dtype`, `environment`, …"""

    @property
    def cannot(self) -> Mapping[str, str]:
        """What this runner cannot do (`divergence`, `scalars`, `generation`, `inspection`), and why; for the report."""

    @property
    def vocabulary(self) -> int:
        """How many tokens the model chooses among; 0 if that is not known."""

    def score_windows(self, text: TextWindows, batch: Sequence[int], *, compare: bool = False) -> list[WindowScore]:
        """Score one of the text's batches.

        Args:
            text: the windows.
            batch: one of `text.batches`.
            compare: measure the divergence from the uncompressed model too, where that can be done.
        """

    def score_continuations(
        self, pairs: Sequence[Pair], *, max_length: int, progress: Progress | None = None
    ) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of each continuation given its context, and whether it is what greedy decoding gives.

        Args:
            pairs: contexts and continuations, neither empty.
            max_length: tokens that the model is fed at most; longer input loses its beginning.
            progress: called after every forward pass or answer.
        """

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """Go on from each prompt.

        Raises:
            InfraError: the runner cannot (`unsupported`).
        """

    def stored(self, where: Coordinate) -> Scalar | CannotTell:
        """What the artefact holds for one scalar of a down projection."""

    def inspect(self) -> Inspection:
        """Look at what became of the weights."""

    def another_way(self) -> AbstractContextManager[str]:
        """Inside the block, compute the same by other means; gives what is different, empty if there is no other."""

    def close(self) -> None:
        """Let go of whatever is held."""


@runtime_checkable
class ShowsPoints(Protocol):
    """A runner whose model lies in files: it shows a scalar there, and once they are loaded."""

    def points(self, where: Coordinate, original: Scalar) -> Points:
        """What becomes of one scalar of a down projection, point by point.

        Args:
            where: the scalar.
            original: what the uncompressed model holds there.
        """
