"""lm-eval's Hugging Face model, with its scoring replaced by this library's; imports lm-eval, so import it late."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from lm_eval.models.huggingface import HFLM

from superweight.forward.scorer import Scorer

Pair = tuple[list[int], list[int]]

_BATCH = 8  # prompts a batch where text is generated


class InMemoryLM(HFLM):  # type: ignore[misc]
    """What lm-eval asks of a model, answered by a scorer.

    Tokenisation, special tokens, rolling windows and generation are HFLM's own, so that they are what a user of
    lm-eval gets.
    """

    def __init__(self, scorer: Scorer) -> None:
        tokenizer = copy.deepcopy(scorer.loaded.tokenizer)  # HFLM sets a padding token
        super().__init__(pretrained=scorer.loaded.model, tokenizer=tokenizer, batch_size=_BATCH)
        self._scorer = scorer
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

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], *_: Any, **__: Any
    ) -> list[tuple[float, bool]]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        if self._collected is not None:
            self._collected += pairs
            return [(0.0, False)] * len(pairs)
        return self._scorer.continuations(pairs, max_length=self.max_length)
