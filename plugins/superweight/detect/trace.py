"""One forward pass of a prompt, keeping the residual stream and what made its massive entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from superweight.checkpoint.architecture import LinearWeight
from superweight.checkpoint.loading import LoadedModel
from superweight.detect.experts import ExpertCall, ExpertWatch, eager_experts
from superweight.detect.settings import Thresholds
from superweight.errors import InfraError
from superweight.evidence.measured import LayerPeaks, Peak

Place = tuple[int, int]
"""Row of the batch, position in it."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as it is traced.

    Attributes:
        ids: `(rows, tokens)`: one row that begins with BOS and one that does not; only the latter without a BOS.
        bos: for each row, whether it begins with BOS.
        text: what it says.

    """

    ids: torch.Tensor
    bos: tuple[bool, ...]
    text: str


@dataclass(frozen=True)
class Feed:
    """What one down projection was fed at one token.

    Attributes:
        weight: the down projection.
        expert: which expert, in a mixture.
        inputs: float32 `(columns,)` on the CPU, times the router's weight in a mixture.

    """

    weight: LinearWeight
    expert: int | None
    inputs: torch.Tensor


@dataclass(frozen=True)
class Entry:
    """A massive entry of the residual stream and by how much a layer grew it.

    Attributes:
        layer: the layer.
        place: row of the batch and position.
        channel: of the residual stream.
        value: after the layer.
        grown: value after minus value before.

    """

    layer: int
    place: Place
    channel: int
    value: float
    grown: float


@dataclass
class Trace:
    """What one forward pass showed.

    Attributes:
        residual: `layers + 1` tensors `(rows, tokens, hidden)` on the CPU: before the first layer and after each.
        medians: median magnitude of the residual stream after each layer.
        entries: massive entries that a layer wrote, whether or not they persist.
        feeds: by layer and place, what the down projections were fed where there are entries.
        peaks: by layer.

    """

    residual: list[torch.Tensor] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    feeds: dict[tuple[int, Place], tuple[Feed, ...]] = field(default_factory=dict)
    peaks: list[LayerPeaks] = field(default_factory=list)

    def history(self, place: Place, channel: int) -> list[float]:
        """The entry after each layer."""
        return [float(residual[(*place, channel)]) for residual in self.residual[1:]]


def trace(loaded: LoadedModel, prompt: Prompt, settings: Thresholds) -> Trace:
    """Run the model on a prompt and watch it.

    The inputs of a down projection are held only until the end of its layer, and kept only for tokens at which the
    layer wrote a massive entry: memory is `layers × tokens × hidden` for the residual stream and some rows of
    `columns` a layer.

    Raises:
        InfraError: a layer's output is not finite (`non-finite`), or a mixture cannot be watched (`unsupported`).

    """
    recorder = _Recorder(prompt, settings)
    with _watching(loaded, recorder), loaded.arithmetic():
        loaded.model.base_model(input_ids=prompt.ids.to(loaded.device), use_cache=False)
    return recorder.trace


class _Recorder:
    """Hooks that fill a trace layer by layer."""

    def __init__(self, prompt: Prompt, settings: Thresholds) -> None:
        self.trace = Trace()
        self._prompt = prompt
        self._settings = settings
        self._width = prompt.ids.shape[1]
        self._calls: list[
            tuple[LinearWeight, int | None, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]
        ] = []

    def before(self, hidden: torch.Tensor) -> None:
        """The residual stream that enters the first layer."""
        self.trace.residual.append(hidden.detach().cpu().clone())

    def dense(self, weight: LinearWeight, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        """A dense down projection ran on all tokens."""
        x, y = inputs.detach().flatten(0, -2), outputs.detach().flatten(0, -2)
        self._calls.append((weight, None, x, y, torch.arange(len(x), device=x.device), None))

    def expert(self, call: ExpertCall) -> None:
        """An expert's down projection ran on some tokens."""
        self._calls.append((call.weight, call.expert, call.inputs, call.outputs, call.tokens, call.scales))

    def after(self, layer: int, hidden: torch.Tensor) -> None:
        """A layer ended: find the massive entries it wrote, keep what it was fed there, forget the rest."""
        stream = hidden.detach()
        if not bool(torch.isfinite(stream).all()):
            raise InfraError(
                f"expected finite activations, found NaN or infinity after decoder layer {layer}. "
                "Check the checkpoint, or compute in a dtype with a wider range.",
                reason="non-finite",
            )
        magnitude = stream.float().abs()
        self.trace.medians.append(float(magnitude.median()))
        grown = stream.float() - self.trace.residual[-1].to(stream.device).float()
        entries = self._massive(layer, stream.float(), grown, magnitude)
        self.trace.entries += entries
        for place in {entry.place for entry in entries}:
            self.trace.feeds[layer, place] = tuple(self._feeds(place))
        self.trace.peaks.append(self._layer_peaks(layer, stream))
        self.trace.residual.append(stream.cpu().clone())
        self._calls.clear()

    def _massive(self, layer: int, stream: torch.Tensor, grown: torch.Tensor, magnitude: torch.Tensor) -> list[Entry]:
        limit = max(self._settings.massive * self.trace.medians[-1], self._settings.of_largest * float(magnitude.max()))
        wrote = grown * stream.sign() >= self._settings.written * magnitude
        chosen = torch.where((magnitude >= limit) & wrote, grown.abs(), 0).flatten()
        found = chosen.topk(min(self._settings.entries, len(chosen)))
        places = torch.unravel_index(found.indices[found.values > 0], stream.shape)
        return [
            Entry(layer, (row, token), channel, float(stream[row, token, channel]), float(grown[row, token, channel]))
            for row, token, channel in zip(*(index.tolist() for index in places), strict=True)
        ]

    def _feeds(self, place: Place) -> Iterator[Feed]:
        flat = place[0] * self._width + place[1]
        for weight, expert, x, _, tokens, scales in self._calls:
            for index in (tokens == flat).nonzero().flatten().tolist():
                scale = 1.0 if scales is None else float(scales[index])
                yield Feed(weight, expert, x[index].float().cpu() * scale)

    def _layer_peaks(self, layer: int, stream: torch.Tensor) -> LayerPeaks:
        every = torch.arange(stream.shape[0] * stream.shape[1], device=stream.device)
        inputs = [self._peak(x, tokens) for _, _, x, _, tokens, _ in self._calls]
        outputs = [self._peak(y, tokens) for _, _, _, y, tokens, _ in self._calls]
        none = Peak(value=0.0, channel=0, token=0, bos=False)
        return LayerPeaks(
            layer=layer,
            down_input=max(inputs, key=lambda peak: abs(peak.value), default=none),
            down_output=max(outputs, key=lambda peak: abs(peak.value), default=none),
            residual=self._peak(stream.flatten(0, 1), every),
            residual_median=self.trace.medians[-1],
        )

    def _peak(self, values: torch.Tensor, tokens: torch.Tensor) -> Peak:
        index, channel = divmod(int(values.abs().argmax()), values.shape[-1])
        row, token = divmod(int(tokens[index]), self._width)
        return Peak(value=float(values[index, channel]), channel=channel, token=token, bos=self._prompt.bos[row])


@contextmanager
def _watching(loaded: LoadedModel, recorder: _Recorder) -> Iterator[None]:
    architecture = loaded.architecture
    mixtures = [weight for weight in architecture.down_projections if weight.experts]
    with ExitStack() as stack:
        first = architecture.layers[0].register_forward_pre_hook(_first_hook(recorder), with_kwargs=True)
        stack.callback(first.remove)
        for index, layer in enumerate(architecture.layers):
            stack.callback(layer.register_forward_hook(_layer_hook(recorder, index)).remove)
        for weight in architecture.down_projections:
            if not weight.experts:
                stack.callback(weight.module.register_forward_hook(_dense_hook(recorder, weight)).remove)
        if not mixtures:
            yield
            return
        stack.enter_context(eager_experts(mixtures))
        watch = stack.enter_context(ExpertWatch(mixtures, recorder.expert))
        yield
        watch.finish()


def _first_hook(recorder: _Recorder) -> Callable[..., None]:
    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        recorder.before(args[0] if args else kwargs["hidden_states"])

    return hook


def _layer_hook(recorder: _Recorder, index: int) -> Callable[..., None]:
    def hook(_module: Any, _args: Any, output: Any) -> None:
        recorder.after(index, output if isinstance(output, torch.Tensor) else output[0])

    return hook


def _dense_hook(recorder: _Recorder, weight: LinearWeight) -> Callable[..., None]:
    def hook(_module: Any, args: tuple[Any, ...], output: torch.Tensor) -> None:
        recorder.dense(weight, args[0], output)

    return hook
