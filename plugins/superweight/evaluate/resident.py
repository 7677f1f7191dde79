"""Run a loaded model as it is: forward passes in this process, the uncompressed model's states kept for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from superweight.checkpoint.quiet import quiet
from superweight.forward.another_kernel import another_kernel
from superweight.forward.runner import Pair, Progress, Prompt, TextWindows, WindowScore
from superweight.forward.scorer import Scorer

if TYPE_CHECKING:
    from superweight.evaluate.lm import TaskLM


class ReferenceStates:
    """What the head of the reference model is given at every predicted token of the windows, on the CPU."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, int], torch.Tensor] = {}

    def missing(self, text: TextWindows) -> list[Sequence[int]]:
        """The text's batches of which some window is not known."""
        return [
            batch for batch in text.batches if any((text.tokens_sha256, index) not in self._states for index in batch)
        ]

    def keep(self, text: TextWindows, batch: Sequence[int], states: torch.Tensor) -> None:
        """Keep states `(windows, length − 1, hidden)` of a batch."""
        for index, state in zip(batch, states.cpu(), strict=True):
            self._states[text.tokens_sha256, index] = state

    def of(self, text: TextWindows, batch: Sequence[int]) -> torch.Tensor:
        """The states of a batch, `(windows, length − 1, hidden)`."""
        return torch.stack([self._states[text.tokens_sha256, index] for index in batch])


class ResidentModel:
    """Scores windows and continuations, and generates, with a loaded model as it is at the moment.

    Args:
        scorer: of the model; made before any recipe was applied.
        reference: states of the uncompressed model; empty if not given.
        uncompressed: scores with the uncompressed model, if that is another one in memory: its head reads its states.
    """

    def __init__(
        self, scorer: Scorer, reference: ReferenceStates | None = None, uncompressed: Scorer | None = None
    ) -> None:
        self.scorer = scorer
        self._uncompressed = uncompressed
        self.reference = ReferenceStates() if reference is None else reference

    @property
    def vocabulary(self) -> int:
        """How many tokens the model chooses among."""
        return self.scorer.language_model.vocabulary

    @property
    def separable(self) -> bool:
        """Whether the head runs apart from the body; else its states are logits, too large to be kept."""
        return self.scorer.language_model.separable

    @cached_property
    def task_lm(self) -> TaskLM:
        """What lm-eval asks; it tokenises requests, and generates."""
        with quiet():
            from superweight.evaluate.lm import TaskLM

            return TaskLM(self.scorer.loaded)

    def remember(self, text: TextWindows) -> None:
        """Take the model as it is now as the reference; one forward pass of its body over every window."""
        for batch in self.reference.missing(text):
            self.reference.keep(text, batch, self.scorer.window_states(text.tokens_wt[list(batch)]))

    def score_windows(
        self, text: TextWindows, batch: Sequence[int], *, compare: bool = False, remember: bool = False
    ) -> list[WindowScore]:
        """Score one of the text's batches.

        Args:
            text: the windows.
            batch: one of `text.batches`.
            compare: measure the divergence from the reference, whose states must be known.
            remember: take the model as it is now as the reference.
        """
        tokens = text.tokens_wt[list(batch)]
        states = self.scorer.window_states(tokens)
        if remember:
            self.reference.keep(text, batch, states)
        if not compare:
            return [WindowScore(nll) for nll in self.scorer.nll_of(tokens, states)]
        scores = self.scorer.compared(tokens, states, self.reference.of(text, batch), other=self._uncompressed)
        return [WindowScore(*window) for window in zip(*scores, strict=True)]

    def score_continuations(
        self, pairs: Sequence[Pair], *, max_length: int, progress: Progress | None = None, alone: bool = False
    ) -> list[tuple[float, bool]]:
        """As `Scorer.continuations`."""
        return self.scorer.continuations(pairs, max_length=max_length, progress=progress, alone=alone)

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """Go on from each prompt as lm-eval's HFLM does."""
        with quiet(), self.scorer.loaded.arithmetic():
            return self.task_lm.generate_in_memory(prompts)

    def another_way(self) -> AbstractContextManager[str]:
        """Inside the block, another attention kernel."""
        return another_kernel(self.scorer.loaded)
