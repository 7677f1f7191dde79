"""Recipe `smoothquant`: move activation outliers into the weights, then INT8 (arXiv:2211.10438), for comparison."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from superweight.cards.methods import SmoothQuant
from superweight.checkpoint.architecture import LinearWeight
from superweight.compress.context import Context, experts
from superweight.compress.intercept import Call, Handler, intercept
from superweight.compress.w8a8 import Int8Recipe, Smoothing
from superweight.errors import InfraError
from superweight.kernels.activations import ActivationQuantiser

Key = tuple[str, int | None]  # of a matrix


class SmoothQuantRecipe(Int8Recipe[SmoothQuant]):
    """Calibrate, divide inputs by s and multiply columns by s, then quantise both.

    s_j = max|X_j|^α / max|W_j|^(1−α), equation 4 there. As in its authors' code, matrices that multiply the same input
    share s, and the attention's output projection and the MLP's down projection are left unsmoothed. The division
    happens at the input of the matrix rather than in the norm before it: the same numbers, and any architecture.
    """

    def __init__(self, method: SmoothQuant) -> None:
        super().__init__(method, ActivationQuantiser(method.activations))

    def prepare(self, context: Context) -> None:
        """Calibrate.

        Raises:
            InfraError: there is no text, or it reaches no weight that is smoothed (`recipe-mismatch`).
        """
        self.smoothing = _calibrate(self.method, context).smoothing(self.method.alpha)

    def figures(self, context: Context) -> dict[str, Any]:
        """How many matrices are smoothed, and by how much at most."""
        return {
            **super().figures(context),
            "alpha": self.method.alpha,
            "smoothed": len(self.smoothing),
            "largest_factor": max(float(factors.max()) for factors in self.smoothing.values()),
        }


def factors(activation: torch.Tensor, weight: torch.Tensor, alpha: float) -> torch.Tensor:
    """The factor s of each input channel, float32 `(in,)`, from max|X_j| and max|W_j|; 1 where either is 0."""
    s = activation.float() ** alpha / weight.float() ** (1 - alpha)
    return torch.where((activation == 0) | (weight == 0), 1.0, s)


def _calibrate(method: SmoothQuant, context: Context) -> _Recorder:
    windows = context.calibration_windows(method)
    recorder, loaded = _Recorder(context), context.loaded
    body = getattr(loaded.model, "base_model", loaded.model)  # without the head, whose logits nobody needs
    with ExitStack() as stack, loaded.arithmetic():
        intercept(loaded.architecture.linear_weights, recorder.handler, stack)
        for window in windows:
            body(input_ids=window.to(loaded.device).view(1, -1), use_cache=False)
    return recorder


class _Recorder:
    """The largest magnitude of each input channel, and which matrices multiply the same input."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._largest: dict[Key, torch.Tensor] = {}
        self._leader: dict[Key, Key] = {}
        self._last: tuple[torch.Tensor, Key] | None = None
        self._output_projection: dict[int, str] = {}

    def handler(self, weight: LinearWeight) -> Handler:
        """Record what a weight is multiplied with."""
        name = self._context.names[id(weight.parameter)]

        def record(call: Call) -> torch.Tensor:
            matrix = (name, call.expert)
            if self._last is None or self._last[0] is not call.x:
                self._last = (call.x, matrix)
            self._leader.setdefault(matrix, self._last[1])
            if weight.attention:
                self._output_projection[weight.layer] = name  # of an attention block, the last one called
            if call.x.numel():
                largest = call.x.detach().float().abs().reshape(-1, call.x.shape[-1]).amax(0)
                known = self._largest.get(matrix)
                self._largest[matrix] = largest if known is None else torch.maximum(known, largest)
            return call.linear(call.x)

        return record

    def smoothing(self, alpha: float) -> Smoothing:
        """The factors s of every matrix that is smoothed.

        Raises:
            InfraError: none is (`recipe-mismatch`).
        """
        self._last = None
        weights = self._weight_maxima()
        groups: dict[Key, torch.Tensor] = {}
        for matrix, largest in weights.items():
            leader = self._leader[matrix]
            groups[leader] = torch.maximum(groups[leader], largest) if leader in groups else largest
        if not groups:
            raise InfraError(
                "smoothquant smooths the inputs of attention and MLP, and the calibration text reached no such weight "
                f"of {type(self._context.loaded.model).__name__}. Choose a recipe that fits the model.",
                reason="recipe-mismatch",
            )
        s = {leader: factors(self._largest[leader], largest, alpha) for leader, largest in groups.items()}
        return {matrix: s[self._leader[matrix]] for matrix in weights}

    def _weight_maxima(self) -> dict[Key, torch.Tensor]:
        """max|W_j| of each input channel, for the matrices that are smoothed."""
        skipped = set(self._output_projection.values())
        return {
            (weight.name, expert): weight.matrix(expert).abs().amax(0).float()
            for weight in self._context.weights
            if not weight.down and weight.name not in skipped
            for expert in experts(weight)
            if (weight.name, expert) in self._largest
        }
