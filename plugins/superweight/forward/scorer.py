"""Log-likelihoods of windows and of continuations: the one place where a model is run to be scored."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from superweight.errors import InfraError
from superweight.forward.language_model import LanguageModel
from superweight.forward.layer_cache import LayerInputCache, is_exact
from superweight.forward.layout import Layout, lay_out
from superweight.forward.packing import Group, Request, Row, batches, groups
from superweight.forward.runner import Progress
from superweight.forward.sharing import attention, find_sharing, row_cost
from superweight.forward.soundness import check_causal, check_tokens
from superweight.kernels.onednn import differ, onednn_products

if TYPE_CHECKING:
    from superweight.checkpoint.loading import LoadedModel

_BATCH_TOKENS = {"cpu": 512, "cuda": 16384}
"""Tokens a pass: on a CPU, what its caches hold the activations of; elsewhere, what keeps a GPU busy."""
_SHORT, _SHORT_FOR_BODY = 6, 12
"""Target tokens whose log-likelihoods, and whose states, may come from either library's products: those differ by up to
2e-5 a token, more than half of it the head's, and sums should stay within 1e-4 of what plain calls give. Means over
windows may come from either too: they average it out."""
_CACHED_TOKENS = 16  # times the tokens of a pass: copies of a stem's cache that stand before its rows


@dataclass(frozen=True)
class _Waiting:
    """A pass whose states at its targets, `(targets, hidden)`, wait for the head."""

    layout: Layout
    states: torch.Tensor


class Scorer:
    """Scores tokens under a loaded model, whatever a recipe has done to it since.

    How the model can be run (head apart from body, several continuations in one row) is found out once, when the
    scorer is made, by comparing with plain calls. Make it before a recipe is applied and keep it.

    Args:
        loaded: the model.
        batch_tokens: tokens a forward pass, padding included; 512 on a CPU and 16384 elsewhere if not given.
        tolerance: share of the logits' spread that may come of rounding where nothing should change; that of the
            parameters' dtype if not given.

    Attributes:
        sharing: what requests may share; in words, `str(sharing)`.
        layer_inputs: for recipes that leave the first layers alone; None unless `begin_with` was called and the model
            allows it.

    Raises:
        InfraError: the model, if no recipe is in force on it, is no causal language model (`unsupported`).
    """

    def __init__(self, loaded: LoadedModel, *, batch_tokens: int | None = None, tolerance: float | None = None) -> None:
        self.loaded = loaded
        self.language_model = LanguageModel(loaded.model)
        self.batch_tokens = batch_tokens or _BATCH_TOKENS.get(loaded.device.type, _BATCH_TOKENS["cuda"])
        if not loaded.recipes:  # which may mix tokens: one scale for all activations of a pass does
            with loaded.arithmetic():
                check_causal(self.language_model, tolerance)
        self.sharing = find_sharing(self.language_model, loaded.device)
        self.layer_inputs: LayerInputCache | None = None
        self._cost = row_cost(loaded.model)

    def begin_with(self, layers: Sequence[torch.nn.Module]) -> None:
        """Let passes begin at the first layer that a recipe changes (`layer_inputs.first`), if the model allows it."""
        few = torch.arange(8, device=self.loaded.device)[None] % self.language_model.vocabulary
        if len(layers) > 1 and is_exact(layers, self.language_model.states, few):
            self.layer_inputs = LayerInputCache(layers)

    def window_nll(self, windows: torch.Tensor) -> list[float]:
        """Mean negative log-likelihood of each window, in nats a token, summed in float64.

        Args:
            windows: token ids `(windows, length)`, as many a forward pass as `batch_tokens` allows, at least one; the
                first token of each is not predicted.

        Returns:
            one number a window; infinity where the model gives NaN.
        """
        return self.nll_of(windows, self.window_states(windows))

    def window_states(self, windows: torch.Tensor) -> torch.Tensor:
        """What the head is given at every predicted token, `(windows, length − 1, hidden)`."""
        passes = torch.split(windows.to(self.loaded.device), max(1, self.batch_tokens // windows.shape[1]))
        with self.loaded.arithmetic(), self._fast_products():
            return torch.cat([self._states(some, _key(some))[:, :-1] for some in passes])

    def nll_of(self, windows: torch.Tensor, states: torch.Tensor) -> list[float]:
        """As `window_nll`, from what `window_states` gave for the same windows."""
        targets = windows[:, 1:].flatten().to(self.loaded.device)
        with self.loaded.arithmetic(), self._fast_products():
            found, _ = self.language_model.log_likelihoods(states.flatten(0, 1), targets)
        return _means(-found.double().view(len(windows), -1))

    def compared(
        self, windows: torch.Tensor, states: torch.Tensor, reference: torch.Tensor, *, other: Scorer | None = None
    ) -> tuple[list[float], list[float], list[float]]:
        """As `nll_of`, and how far each window's next-token distributions lie from a reference model's.

        Args:
            windows: token ids `(windows, length)`.
            states: `(windows, length − 1, hidden)`, from `window_states`.
            reference: the same of the other model.
            other: of the other model, if its head may not be this model's.

        Returns:
            for each window, the mean negative log-likelihood and the mean Kullback-Leibler divergence (see
            `LanguageModel.compared`), both in nats a token, and the share of tokens on which both models rank the same
            token first.
        """
        targets = windows[:, 1:].flatten().to(self.loaded.device)
        with self.loaded.arithmetic(), self._fast_products():
            found, apart, same = self.language_model.compared(
                states.flatten(0, 1),
                targets,
                reference.to(self.loaded.device).flatten(0, 1),
                None if other is None else other._logits,
            )
        shape = (len(states), -1)
        return (
            _means(-found.double().view(shape)),
            _means(apart.double().view(shape)),
            same.double().view(shape).mean(1).tolist(),
        )

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits of a few states, in this model's own arithmetic."""
        with self.loaded.arithmetic(), self._fast_products():
            return self.language_model.logits(states)

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
            progress: called with how many are done, and how many there are.
            alone: give every pair a row of its own, and no padding: for recipes whose rounding depends on everything
                that stands in a row.

        Returns:
            in the order of `pairs`; −infinity where the model gives NaN.
        """
        asked = [_request(index, *pair, max_length) for index, pair in enumerate(pairs)]
        check_tokens(self.loaded, (max(request.tokens) for request in asked), "a question and its answers")
        first: dict[tuple[tuple[int, ...], int], Request] = {}
        for request in asked:  # equal requests are run once, and so get equal answers
            first.setdefault((request.tokens, request.start), request)
        sums, greedy = [0.0] * len(pairs), [True] * len(pairs)
        read = 0
        with self.loaded.arithmetic():
            for owners, values, best in self._read(self._groups(list(first.values()), alone=alone), alone=alone):
                for owner, value, is_best in zip(owners, values, best, strict=True):
                    sums[owner] += value
                    greedy[owner] = greedy[owner] and is_best
                read += len(set(owners))
                if progress:
                    progress(read, len(first))
        owners = [first[request.tokens, request.start].index for request in asked]
        return [(-math.inf if math.isnan(sums[owner]) else sums[owner], greedy[owner]) for owner in owners]

    def _groups(self, requests: list[Request], *, alone: bool) -> list[Group]:
        reach = self.sharing.reach or 2**31
        return groups(
            requests,
            limit=min(self.batch_tokens, reach) if self.sharing.packed_rows and not alone else 0,
            cost=self._cost,
            longest=reach if self.sharing.cached_prefix and not alone else 0,
        )

    def _read(self, found: Sequence[Group], *, alone: bool) -> Iterator[tuple[list[int], list[float], list[bool]]]:
        """For target tokens of some passes at a time: whose they are, their log-likelihoods, and which are likeliest.

        States wait for the head, which is faster on more of them, apart for each library of products.
        """
        waiting: dict[bool, list[_Waiting]] = {True: [], False: []}
        for group in found:
            cache = self._cache(group.stem)
            for layout in self._layouts(group, alone=alone):
                fast = self._either(layout.longest, _SHORT)
                waiting[fast].append(_Waiting(layout, self._at_targets(layout, cache)))
                if sum(len(one.states) for one in waiting[fast]) >= self.language_model.chunk:
                    yield self._score(waiting[fast], fast=fast)
                    waiting[fast] = []
        for fast, some in waiting.items():
            if some:
                yield self._score(some, fast=fast)

    def _layouts(self, group: Group, *, alone: bool) -> Iterator[Layout]:
        """The group's passes, apart for each library of products; those of short continuations come first."""
        most = self.batch_tokens * _CACHED_TOKENS // len(group.stem) if group.stem else None
        kinds: dict[tuple[bool, bool], list[Row]] = {(True, True): [], (True, False): [], (False, False): []}
        for row in group.rows:
            kinds[self._either(row.targets, _SHORT_FOR_BODY), self._either(row.targets, _SHORT)].append(row)
        for some in kinds.values():
            for batch in batches(some, tokens=self.batch_tokens, pad=not alone, most=most):
                yield lay_out(batch)

    def _either(self, targets: int, most: int) -> bool:
        """Whether another library's products are at hand, and may be used for so many targets."""
        return targets <= most and differ(self.loaded.compute_dtype, self.loaded.device)

    def _cache(self, stem: Sequence[int]) -> Any:
        if not stem:
            return None
        with self.loaded.arithmetic():
            return self.language_model.cache(torch.tensor([stem], device=self.loaded.device))

    def _at_targets(self, layout: Layout, cache: Any) -> torch.Tensor:
        """What the head is to be given of a pass, `(targets, hidden)`."""
        device, fast = self.loaded.device, self._either(layout.longest, _SHORT_FOR_BODY)
        with self.loaded.arithmetic(), self._fast_products() if fast else nullcontext():
            inputs = layout.inputs(device, attention(self.loaded.model))
            if cache is not None:
                inputs["past_key_values"] = self.language_model.before_rows(cache, len(layout.input_ids))
            key = None if cache is not None else _key(layout.input_ids, layout.position_ids, layout.branch)
            return self._states(layout.input_ids.to(device), key, **inputs)[layout.at]

    def _score(self, waiting: Sequence[_Waiting], *, fast: bool) -> tuple[list[int], list[float], list[bool]]:
        owners = [owner for one in waiting for owner in one.layout.owners]
        targets = [target for one in waiting for target in one.layout.targets]
        states = torch.cat([one.states for one in waiting])
        with self.loaded.arithmetic(), self._fast_products() if fast else nullcontext():
            found, best = self.language_model.log_likelihoods(states, torch.tensor(targets, device=states.device))
        return owners, found.tolist(), best.tolist()

    def _fast_products(self) -> AbstractContextManager[Any]:
        return onednn_products(self.loaded.compute_dtype, self.loaded.device)

    def _states(self, input_ids: torch.Tensor, key: bytes | None, **inputs: Any) -> torch.Tensor:
        """One pass of the body; with a key, from where the recipe in force begins."""
        if key is None or self.layer_inputs is None:
            return self.language_model.states(input_ids, **inputs)
        with self.layer_inputs.run((key, attention(self.loaded.model))):
            return self.language_model.states(input_ids, **inputs)


def _key(*tensors: torch.Tensor) -> bytes:
    """Of a pass: what it is fed and how that is laid out."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.digest()


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
