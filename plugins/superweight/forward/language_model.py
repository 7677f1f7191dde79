"""A language model taken apart into body and head, so that logits are only made where they are read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, cast

import torch
from torch import nn
from torch.nn import functional

from superweight.kernels.logits import Workspace, divergence_, first_of_largest, log_probabilities_

_CHUNK_BYTES = {"cpu": 32 * 2**20, "cuda": 256 * 2**20}
"""Of float32 logits held at a time: enough states for a product to be fast, few enough not to wait for memory."""
_BLOCK = {"cpu": 2048}  # tokens whose logits are made in one product; elsewhere all at once
_AMPLIFIED = 1e4  # times the states of a few tokens: soft-capping, if there is any, shows in their logits
_PROBE_TOKENS = 8
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


Read = Callable[[torch.Tensor], torch.Tensor]
"""Makes float32 logits `(n, vocabulary)` of states `(n, hidden)`, which may be written over."""


class LanguageModel:
    """Token log-likelihoods of a causal language model, without the logits of a whole sequence.

    The body (`model.base_model`) runs once; the head then runs on a few positions at a time. A head that is a linear
    layer and nothing else (tried when this is made) is read a block of the vocabulary at a time. Any other is not
    rebuilt from parts: it is the model's own `forward` with the body's answer put in place, so soft-capping (Gemma 2),
    logit scaling (Granite, Cohere) and whatever else an architecture does after its body are the model's own. A model
    that cannot be taken apart this way is called plainly; its logits are then made in the dtype of the model and only
    turned to float32 a chunk at a time.

    Args:
        model: a transformers causal language model.
        chunk_bytes: bound on the float32 logits held at a time; 32 MiB on a CPU and 256 MiB elsewhere if not given.

    Attributes:
        vocabulary: how many tokens there are.
        chunk: positions whose logits are held at a time, and best read together.
    """

    def __init__(self, model: Any, *, chunk_bytes: int | None = None) -> None:
        self.model = model
        self.vocabulary = vocabulary_of(model)
        kind = next(model.parameters()).device.type
        self.chunk = max(1, (chunk_bytes or _CHUNK_BYTES.get(kind, _CHUNK_BYTES["cuda"])) // (4 * self.vocabulary))
        self._block = _BLOCK.get(kind, self.vocabulary)
        self._memory = Workspace()
        self._answer: type = type(None)  # of what the body returns
        self._body = self._find_body()
        self._is_linear = self._body is not None and self._find_linear(self._body)

    @property
    def separable(self) -> bool:
        """Whether body and head can be run apart."""
        return self._body is not None

    def states(self, input_ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Run the body on tokens `(batch, length)`.

        Returns:
            `(batch, length, hidden)`, or `(batch, length, vocabulary)` if the model cannot be taken apart.
        """
        module = self.model if self._body is None else self._body
        output = module(input_ids=input_ids, use_cache=False, **inputs)
        states: torch.Tensor = output.logits if self._body is None else output.last_hidden_state
        return states

    def cache(self, input_ids: torch.Tensor) -> Any:
        """Keys and values of a stem `(1, length)`, as transformers' own cache.

        Raises:
            TypeError: the model keeps none.
        """
        module = self.model if self._body is None else self._body
        found = getattr(module(input_ids=input_ids, use_cache=True), "past_key_values", None)
        if not hasattr(found, "batch_repeat_interleave"):
            raise TypeError(f"{type(self.model).__name__} keeps no cache that can be repeated")
        return found

    def before_rows(self, cache: Any, count: int) -> Any:
        """A copy of a stem's cache to stand before so many rows; a forward pass adds the rows to it."""
        copied = copy.deepcopy(cache)
        copied.batch_repeat_interleave(count)
        return copied

    def log_likelihoods(self, states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-likelihood of one target token at each state, and whether it is the most likely token.

        Args:
            states: `(n, hidden)`, picked from what `states` returned.
            targets: `(n,)` token ids.

        Returns:
            float32 natural logarithms `(n,)` and booleans `(n,)`.
        """
        pairs = zip(torch.split(states, self.chunk), torch.split(targets, self.chunk), strict=True)
        parts = [self._log_likelihoods(some, wanted) for some, wanted in pairs]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def compared(
        self, states: torch.Tensor, targets: torch.Tensor, reference: torch.Tensor, read: Read | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-likelihoods, and how far the next-token distributions of two models lie apart.

        Args:
            states: `(n, hidden)`, the model's own.
            targets: `(n,)` token ids.
            reference: `(n, hidden)`, another's at the same places.
            read: makes logits of those; this model's head if not given, where both models have the same.

        Returns:
            the model's log-likelihoods, float32 `(n,)`; the Kullback-Leibler divergence from the reference's
            distribution in nats, float32 `(n,)`, infinite where either model gives NaN; and whether both rank the same
            token first, booleans `(n,)`.
        """
        read = read or self._read_reference
        parts = zip(*(torch.split(each, self.chunk) for each in (states, targets, reference)), strict=True)
        found, apart, same = zip(*(self._compared(own, at, its, read) for own, at, its in parts), strict=True)
        return torch.cat(found), torch.cat(apart), torch.cat(same)

    def _log_likelihoods(self, states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self._wide_logits(states, "logits")
        best = first_of_largest(logits) == targets
        return log_probabilities_(logits).gather(1, targets[:, None])[:, 0], best

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Float32 logits `(n, vocabulary)` of states `(n, hidden)`, at most `chunk` of them; overwritten by the next
        call.
        """
        return self._wide_logits(states, "logits")

    def _read_reference(self, states: torch.Tensor) -> torch.Tensor:
        return self._wide_logits(states, "reference logits")

    def _compared(
        self, states: torch.Tensor, targets: torch.Tensor, reference: torch.Tensor, read: Read
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        own, other = self.logits(states), read(reference)
        same = first_of_largest(own) == first_of_largest(other)
        log_q, log_p = log_probabilities_(own), log_probabilities_(other)
        found = log_q.gather(1, targets[:, None])[:, 0]
        return found, divergence_(log_p, log_q), same

    def _wide_logits(self, states: torch.Tensor, name: str) -> torch.Tensor:
        """Float32 logits `(n, vocabulary)` of a few states, in memory that the next call of this name uses again."""
        wide = self._memory.take(name, len(states), self.vocabulary, states.device)
        head = self._linear_head()
        if head is None:
            return wide.copy_(states if self._body is None else self._logits(self._body, states))
        for start in range(0, self.vocabulary, self._block):
            block = slice(start, start + self._block)
            bias = None if head.bias is None else head.bias[block]
            wide[:, block] = functional.linear(states, head.weight[block], bias)
        return wide

    def _linear_head(self) -> nn.Linear | None:
        """The head, if calling it is multiplying with its weight and nothing else, and still so."""
        head = self.model.get_output_embeddings() if self._is_linear else None
        if head is None or not _multiplies_plainly(head):
            return None
        return head  # type: ignore[no-any-return]

    def _logits(self, body: nn.Module, states: torch.Tensor) -> torch.Tensor:
        """The model's own logits `(n, vocabulary)` for states `(n, hidden)`."""
        tokens = torch.zeros(1, len(states), dtype=torch.long, device=states.device)  # only their number is read
        with _answering(body, self._answer(last_hidden_state=states[None])):
            logits: torch.Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return logits[0]

    def _find_body(self) -> nn.Module | None:
        """The module whose answer, put back in place, gives the model's own logits; tried on a few tokens."""
        device = next(self.model.parameters()).device
        tokens = torch.arange(_PROBE_TOKENS, device=device)[None] % self.vocabulary
        with torch.no_grad():
            expected = self.model(input_ids=tokens, use_cache=False).logits[0]
            for body in (self.model.base_model, self.model.get_decoder()):
                if body is not self.model and body is not None and self._agrees(body, tokens, expected):
                    return cast(nn.Module, body)
        return None

    def _find_linear(self, body: nn.Module) -> bool:
        """Whether logits are the states times the head's weight, however large they are."""
        head = self.model.get_output_embeddings()
        if not _multiplies_plainly(head) or len(head.weight) != self.vocabulary:
            return False
        tokens = torch.arange(_PROBE_TOKENS, device=head.weight.device)[None] % self.vocabulary
        with torch.no_grad():
            states = self.states(tokens)[0]
            if (states.device, states.dtype) != (head.weight.device, head.weight.dtype):
                return False
            for large in (states, states * _AMPLIFIED):
                expected = self._logits(body, large)
                found = functional.linear(large, head.weight, head.bias)
                if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-5, equal_nan=True):
                    return False
        return True

    def _agrees(self, body: nn.Module, tokens: torch.Tensor, expected: torch.Tensor) -> bool:
        try:
            output = body(input_ids=tokens, use_cache=False)
            self._answer = type(output)
            found = self._logits(body, output.last_hidden_state[0])
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            return False
        same_shape = found.shape == expected.shape
        return same_shape and torch.allclose(found.float(), expected.float(), rtol=1e-5, atol=1e-6, equal_nan=True)


def vocabulary_of(model: Any) -> int:
    """How many tokens a model chooses among: rows of its head, where that is a plain matrix; else what it answers."""
    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if is_plain_matrix(weight):
        return int(weight.shape[0])
    if head is None:
        return int(model.config.get_text_config().vocab_size)
    tokens = torch.zeros(1, 1, dtype=torch.long, device=next(model.parameters()).device)
    with torch.no_grad():
        return int(model(input_ids=tokens, use_cache=False).logits.shape[-1])


def is_plain_matrix(weight: object) -> TypeGuard[torch.Tensor]:
    """Whether it holds the numbers of a matrix themselves: no codes, and no class of a quantiser's own."""
    return (
        isinstance(weight, torch.Tensor)
        and type(weight) in (torch.Tensor, nn.Parameter)
        and weight.dim() == 2
        and weight.dtype in _FLOATS
    )


def _multiplies_plainly(head: Any) -> bool:
    """Whether nothing but a product with its own weight happens when it is called, as far as that can be seen."""
    if type(head) is not nn.Linear or "forward" in vars(head) or head._forward_hooks or head._forward_pre_hooks:
        return False
    return is_plain_matrix(getattr(head, "weight", None))


@contextmanager
def _answering(module: nn.Module, output: Any) -> Iterator[None]:
    """Make a module give this answer to every call."""
    before = vars(module).get("forward")
    module.forward = lambda *_, **__: output
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
