"""Log-likelihoods of windows and of continuations: the one place where a model is run to be scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from superweight.checkpoint.loading import LoadedModel
from superweight.errors import InfraError
from superweight.evaluate.head import LanguageModel
from superweight.evaluate.packing import Layout, Request, batches, lay_out, rows

Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is."""

_WIDEST_ROW = 1024  # tokens; beyond that the mask of a packed row costs more than sharing saves
_WIDEST_PROBE = 32
_BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}


class Scorer:
    """Scores tokens under a loaded model, whatever a recipe has done to it since.

    How the model can be run (head apart from body, several continuations in one row) is found out once, when the
    scorer is made, by comparing with plain calls. Make it before a recipe is applied and keep it.

    Args:
        loaded: the model.
        batch_tokens: tokens a forward pass, padding included; 2048 on a CPU and 16384 elsewhere if not given.
    """

    def __init__(self, loaded: LoadedModel, *, batch_tokens: int | None = None) -> None:
        self.loaded = loaded
        self.language_model = LanguageModel(loaded.model)
        self.batch_tokens = batch_tokens or _BATCH_TOKENS.get(loaded.device.type, _BATCH_TOKENS["cuda"])
        self.widest_row = self._widest_row()

    def window_nll(self, windows: torch.Tensor) -> list[float]:
        """Mean negative log-likelihood of each window, in nats a token, summed in float64.

        Args:
            windows: token ids `(windows, length)`, run in one forward pass; the first token of each is not predicted.

        Returns:
            one number a window; infinity where the model gives NaN.
        """
        return self.nll_of(windows, self.window_states(windows))

    def window_states(self, windows: torch.Tensor) -> torch.Tensor:
        """What the head is given at every predicted token, `(windows, length − 1, hidden)`; one forward pass."""
        with self.loaded.arithmetic():
            return self.language_model.states(windows.to(self.loaded.device))[:, :-1]

    def nll_of(self, windows: torch.Tensor, states: torch.Tensor) -> list[float]:
        """As `window_nll`, from what `window_states` gave for the same windows."""
        targets = windows[:, 1:].flatten().to(self.loaded.device)
        with self.loaded.arithmetic():
            found, _ = self.language_model.log_likelihoods(states.flatten(0, 1), targets)
        return _means(-found.double().view(len(windows), -1))

    def divergence(self, states: torch.Tensor, reference: torch.Tensor) -> tuple[list[float], list[float]]:
        """How far each window's next-token distributions lie from a reference model's.

        Args:
            states: `(windows, length − 1, hidden)`, from `window_states`.
            reference: the same of the other model.

        Returns:
            for each window, the mean Kullback-Leibler divergence in nats a token (see `LanguageModel.divergence`), and
            the share of tokens on which both models rank the same token first.
        """
        with self.loaded.arithmetic():
            apart, same = self.language_model.divergence(
                states.flatten(0, 1), reference.to(self.loaded.device).flatten(0, 1)
            )
        return _means(apart.double().view(len(states), -1)), same.double().view(len(states), -1).mean(1).tolist()

    def continuations(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        max_length: int,
        progress: Progress | None = None,
        alone: bool = False,
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation given its context, and whether greedy decoding would produce it.

        Args:
            pairs: token ids of context and continuation, neither empty. Neighbours that begin alike are computed
                together, and equal ones once.
            max_length: what the model can be fed; longer input loses its beginning, as in lm-eval.
            progress: called after every forward pass.
            alone: give every pair a row of its own, and no padding: for recipes whose rounding depends on everything
                that stands in a row.

        Returns:
            in the order of `pairs`; −infinity where the model gives NaN.
        """
        asked = [_request(index, *pair, max_length) for index, pair in enumerate(pairs)]
        first: dict[tuple[tuple[int, ...], int], Request] = {}
        for request in asked:  # equal requests are run once, and so get equal answers
            first.setdefault((request.tokens, request.start), request)
        requests = list(first.values())
        sums, greedy = [0.0] * len(pairs), [True] * len(pairs)
        done = 0
        limit = 0 if alone else self.widest_row
        for batch in batches(rows(requests, limit=limit), tokens=self.batch_tokens, pad=not alone):
            layout = lay_out(batch)
            for owner, value, best in zip(layout.owners, *self._score(layout), strict=True):
                sums[owner] += value
                greedy[owner] = greedy[owner] and best
            done += sum(len(row.requests) for row in batch)
            if progress:
                progress(done, len(requests))
        owners = [first[request.tokens, request.start].index for request in asked]
        return [(-math.inf if math.isnan(sums[owner]) else sums[owner], greedy[owner]) for owner in owners]

    def _score(self, layout: Layout) -> tuple[list[float], list[bool]]:
        device = self.loaded.device
        with self.loaded.arithmetic():
            inputs = layout.inputs(device, self._attention)
            states = self.language_model.states(layout.input_ids.to(device), **inputs)
            targets = torch.tensor(layout.targets, device=device)
            found, best = self.language_model.log_likelihoods(states[layout.at], targets)
        return found.tolist(), best.tolist()

    @property
    def _attention(self) -> str:
        return str(getattr(self.loaded.model.config, "_attn_implementation", ""))

    def _widest_row(self) -> int:
        """Longest row in which several requests may stand; 0 if the model cannot do that."""
        if getattr(self.loaded.model, "_is_stateful", False) or self._attention not in ("sdpa", "eager"):
            return 0
        widest = min(_WIDEST_ROW, self.batch_tokens, *_reaches(self.loaded.model.config))
        return widest if widest >= _WIDEST_PROBE and self._packs() else 0

    def _packs(self) -> bool:
        """Whether branches of one row get the numbers they get alone, tried on a few tokens."""
        model, device = self.loaded.model, self.loaded.device
        context = [(7 * k + 3) % self.language_model.vocabulary for k in range(12)]
        requests = [Request(0, (*context, 1, 2, 3), 12), Request(1, (*context, 4, 5, 6, 7), 12)]
        layout = lay_out(rows(requests, limit=_WIDEST_PROBE))
        inputs = layout.inputs(device, self._attention)
        with torch.inference_mode():
            alone = model(input_ids=torch.tensor([requests[1].inputs], device=device), use_cache=False).logits
            try:
                together = model(input_ids=layout.input_ids.to(device), use_cache=False, **inputs).logits
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
                return False
        columns = [column for column, owner in zip(layout.at[1], layout.owners, strict=True) if owner == 1]
        return _close(together[0, columns], alone[0, -len(columns) :])


def _means(values: torch.Tensor) -> list[float]:
    return [math.inf if math.isnan(mean) else mean for mean in values.mean(1).tolist()]


def _request(index: int, context: Sequence[int], continuation: Sequence[int], max_length: int) -> Request:
    if not 0 < len(continuation) <= max_length:
        raise InfraError(
            f"request {index}: expected a continuation of 1 to {max_length} tokens (what the model can be fed), "
            f"found {len(continuation)}. The task does not suit this model.",
            reason="unsupported",
        )
    tokens = (*context, *continuation)[-(max_length + 1) :]
    return Request(index, tokens, len(tokens) - len(continuation))


def _reaches(config: Any) -> list[int]:
    """How far back attention reaches, where it is bounded: within that, local and full attention are the same."""
    text = config.get_text_config()
    bounds = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    return [bound for bound in bounds if isinstance(bound, int)]


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two sets of logits are the same but for the rounding of their dtype."""
    tolerance = 1e-4 if found.dtype == torch.float32 else 3e-2
    spread = (expected.float() - expected.float().mean(-1, keepdim=True)).norm()
    return bool((found.float() - expected.float()).norm() <= tolerance * spread)
