"""Recipe `smoothquant`: move activation outliers into the weights, then INT8 (arXiv:2211.10438), for comparison."""

from __future__ import annotations

from contextlib import ExitStack

import torch

from superweight.cards.recipe import SmoothQuant
from superweight.checkpoint.architecture import LinearWeight
from superweight.compress.activations import quantiser_of
from superweight.compress.context import Context, RecipeReport, UndoLog, experts
from superweight.compress.intercept import Call, Handler, intercept
from superweight.compress.w8a8 import Int8, Smoothing, install
from superweight.errors import InfraError

Matrix = tuple[str, int | None]


def apply(method: SmoothQuant, context: Context, journal: UndoLog) -> RecipeReport:
    """Calibrate, divide inputs by s and multiply columns by s, then quantise both.

    s_j = max|X_j|^α / max|W_j|^(1−α), equation 4 there. As in its authors' code, matrices that multiply the same input
    share s, and the attention's output projection and the MLP's down projection are left unsmoothed. The division
    happens at the input of the matrix rather than in the norm before it: the same numbers, and any architecture.
    """
    recorder = _calibrate(method, context)
    smoothing = recorder.smoothing(method.alpha)
    how = Int8(method.weights, quantiser_of(method), smoothing=smoothing)
    outcome = install(how, context, journal)
    outcome.figures.update(
        alpha=method.alpha,
        smoothed=len(smoothing),
        largest_factor=max(float(factors.max()) for factors in smoothing.values()),
    )
    return outcome


def factors(activation: torch.Tensor, weight: torch.Tensor, alpha: float) -> torch.Tensor:
    """The factor s of each input channel, float32 `(in,)`, from max|X_j| and max|W_j|; 1 where either is 0."""
    s = activation.float() ** alpha / weight.float() ** (1 - alpha)
    return torch.where((activation == 0) | (weight == 0), 1.0, s)


def _calibrate(method: SmoothQuant, context: Context) -> _Recorder:
    if context.calibration is None:
        raise InfraError(
            f"smoothquant calibrates on corpus '{method.calibration_corpus}', and the context has no calibration text. "
            "Give the context a calibration function.",
            reason="recipe-mismatch",
        )
    recorder = _Recorder(context)
    windows = context.calibration(method.calibration_corpus, method.calibration_windows, method.calibration_window)
    loaded = context.loaded
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
        self._names = {id(weight.parameter): weight.name for weight in context.weights}
        self._largest: dict[Matrix, torch.Tensor] = {}
        self._leader: dict[Matrix, Matrix] = {}
        self._last: tuple[torch.Tensor, Matrix] | None = None
        self._output_projection: dict[int, str] = {}

    def handler(self, weight: LinearWeight) -> Handler:
        """Record what a weight is multiplied with."""
        name = self._names[id(weight.parameter)]

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
        groups: dict[Matrix, torch.Tensor] = {}
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

    def _weight_maxima(self) -> dict[Matrix, torch.Tensor]:
        """max|W_j| of each input channel, for the matrices that are smoothed."""
        skipped = set(self._output_projection.values())
        return {
            (weight.name, expert): weight.matrix(expert).abs().amax(0).float()
            for weight in self._context.weights
            if not weight.down and weight.name not in skipped
            for expert in experts(weight)
            if (weight.name, expert) in self._largest
        }
