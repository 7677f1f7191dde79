"""lm-eval's Hugging Face model with a runner's answers in the place of its own; imports lm-eval, so import it late."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from superweight.forward.runner import Pair, Progress, Prompt

if TYPE_CHECKING:
    from superweight.checkpoint.loading import LoadedModel

_BATCH = 8  # prompts a batch where text is generated


class Answers(Protocol):
    """What a task asks of a runner."""

    def score_continuations(
        self, pairs: Sequence[Pair], *, max_length: int, progress: Progress | None = None
    ) -> list[tuple[float, bool]]:
        """As `Runner.score_continuations`."""

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """As `Runner.generate`."""


class TaskLM(HFLM):  # type: ignore[misc]
    """What lm-eval asks of a model, answered by a runner.

    Tokenisation, special tokens and rolling windows are HFLM's own, so that they are what a user of lm-eval gets, and
    need the tokenizer and the configuration of the reference model alone.

    Args:
        loaded: the reference model.

    Attributes:
        runner: whom requests are handed to.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        tokenizer = copy.deepcopy(loaded.tokenizer)  # HFLM sets a padding token
        super().__init__(pretrained=loaded.model, tokenizer=tokenizer, batch_size=_BATCH)
        self.runner: Answers | None = None
        self._collected: list[Pair] | None = None

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **more: Any) -> list[int]:
        """As HFLM, which fails on any text where the tokenizer has neither BOS nor EOS to look for at its beginning."""
        if self.prefix_token_id is None and add_special_tokens is None:
            add_special_tokens = True  # as tokenizers do by themselves
        found: list[int] = super().tok_encode(string, add_special_tokens=add_special_tokens, **more)
        return found

    def encode(self, instances: Sequence[Any]) -> list[Pair]:
        """Token ids of context and continuation of each log-likelihood request, exactly as HFLM makes them."""
        collected: list[Pair] = []
        self._collected = collected
        try:
            self.loglikelihood(list(instances), disable_tqdm=True)
        finally:
            self._collected = None
        return collected

    def encode_each(self, instances: Sequence[Any]) -> list[Pair | Exception]:
        """As `encode`, with what was raised in the place of each request of which HFLM can make no tokens."""
        try:
            return list(self.encode(instances))
        except Exception as error:  # one of many is at fault: each is tried alone
            if len(instances) == 1:
                return [error]
        return [found for instance in instances for found in self.encode_each([instance])]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Let the runner go on from each prompt."""
        return self._asked.generate([Prompt(*request.args) for request in requests])

    def generate_in_memory(self, prompts: Sequence[Prompt]) -> list[str]:
        """Go on from each prompt with the model itself, as HFLM does."""
        asked = [
            Instance(request_type="generate_until", doc={}, arguments=(prompt.text, prompt.settings), idx=index)
            for index, prompt in enumerate(prompts)
        ]
        generated: list[str] = super().generate_until(asked, disable_tqdm=True)
        return generated

    @property
    def _asked(self) -> Answers:
        if self.runner is None:
            raise RuntimeError("requests are prepared without a runner; set `runner` to have them answered")
        return self.runner

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], *_: Any, **__: Any
    ) -> list[tuple[float, bool]]:
        pairs: list[Pair] = [(context, continuation) for _, context, continuation in requests]
        if self._collected is not None:
            self._collected += pairs
            return [(0.0, False)] * len(pairs)
        return self._asked.score_continuations(pairs, max_length=self.max_length)
