"""An artefact loaded again by transformers, and held against the recipe in memory: every number, and every logit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superweight.artefact.writing.metadata import tools
from superweight.artefact.writing.schemes import restores, scheme_of
from superweight.cards.base import Coordinate
from superweight.cards.recipe import RecipeCard
from superweight.checkpoint.files import Checkpoint
from superweight.evidence.artefact import Load, RoundTrip
from superweight.plain_text import briefly

if TYPE_CHECKING:
    import torch

    from superweight.checkpoint.loading import LoadedModel

_TOKENS = (2, 48)
"""Sequences, and tokens of each, that both models are run on."""


@dataclass
class InMemory:
    """A recipe's cell in memory, as far as a file is compared with it.

    Attributes:
        parameters: what it leaves of each.
        weights: logits with activations as they are, `(sequences, tokens, vocabulary)`.
        whole: logits with activations as the recipe has them; the same where it leaves them alone.
        quantising: how many modules have their input quantised.
    """

    parameters: dict[str, torch.Tensor]
    weights: torch.Tensor
    whole: torch.Tensor
    quantising: int


def round_trip(
    directory: Path,
    checkpoint: Checkpoint,
    card: RecipeCard,
    super_weights: Sequence[Coordinate] = (),
    *,
    loads: Sequence[Load] = ("default", "dequantised"),
    dtype: str = "",
) -> list[RoundTrip]:
    """Load an artefact and compare it with the recipe applied to its checkpoint in memory.

    Args:
        directory: the artefact.
        checkpoint: what it was made from.
        card: the recipe that it was made by.
        super_weights: those that the recipe knew.
        loads: ways of loading it.
        dtype: torch's name of the dtype to which the checkpoint was rounded first; empty if it was not.

    Returns:
        one record a way of loading; what transformers cannot load is told, not raised.

    Raises:
        InfraError: the checkpoint cannot be loaded, or the recipe does not fit it.
    """
    loaded = _reference(checkpoint, dtype)
    tokens = _tokens(loaded)
    cell = in_memory(loaded, _without_adapter(card), super_weights, tokens)
    del loaded
    note = scheme_of(card.method).note
    return [_compared(directory, load, tokens, cell, note) for load in loads]


def _without_adapter(card: RecipeCard) -> RecipeCard:
    """The recipe without what an adapter brings back: that the two together are exact is the adapter's proof."""
    if not restores(card.method):
        return card
    return card.model_copy(update={"method": card.method.model_copy(update={"super_weights": "rounded"})})


def in_memory(
    loaded: LoadedModel, card: RecipeCard, super_weights: Sequence[Coordinate], tokens: torch.Tensor
) -> InMemory:
    """Apply a recipe, run the model with and without what it does to activations, and undo it."""
    import torch

    from superweight.compress import Context, recipe_of
    from superweight.compress.applied import rewrite
    from superweight.compress.undo_log import UndoLog

    context, log, recipe = Context(loaded, tuple(super_weights)), UndoLog(), recipe_of(card.method)
    try:
        with torch.no_grad():
            recipe.prepare(context)
            for weight in context.weights:
                rewrite(recipe, context, weight, log)
            parameters = {name: tensor.detach().clone() for name, tensor in loaded.model.named_parameters()}
            plain = whole = _logits(loaded.model, tokens)
            with ExitStack() as stack:
                hooks = list(recipe.install(context, stack))
                if hooks:
                    whole = _logits(loaded.model, tokens)
    finally:
        log.undo()
    return InMemory(parameters, plain, whole, len(hooks))


def _compared(directory: Path, load: Load, tokens: torch.Tensor, cell: InMemory, note: str) -> RoundTrip:
    found = RoundTrip(load=load, note=note, expected=cell.quantising, tools=tools())
    try:
        with _silent_bars():
            model = load_artefact(directory, dequantise=load == "dequantised")
            _logits(model, tokens)  # the first pass of a default load decodes the weights
            with _watched(model) as watch:
                logits = _logits(model, tokens)
    except Exception as error:  # whatever a library may raise: that it does not load is the finding
        return found.model_copy(update={"failure": briefly(error)})
    expected = cell.whole if watch.quantising else cell.weights
    return found.model_copy(
        update={
            "parameters": len(cell.parameters),
            "differing": _differing(cell, dict(model.named_parameters())),
            "quantising": len(watch.quantising),
            "activations": _activations(len(watch.quantising), cell.quantising),
            "logits": float((logits.float() - expected.float()).abs().max()),
            "largest": float(expected.float().abs().max()),
            "changed_choices": int((logits.argmax(-1) != expected.argmax(-1)).sum()),
            "positions": tokens.numel(),
            "note": "; ".join(part for part in (note, watch.note) if part),
        }
    )


def load_artefact(directory: Path, *, dequantise: bool = False) -> Any:
    """Load an artefact with transformers as anybody would.

    Args:
        directory: the artefact.
        dequantise: decode weights while loading, and leave activations as they are.
    """
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    from superweight.checkpoint.loading import quiet

    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if dequantise else {}
    with quiet(), _silent_bars():
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype="auto", local_files_only=True, trust_remote_code=False, use_safetensors=True, **how
        )
    return model.eval().requires_grad_(False)


def _differing(cell: InMemory, held: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Parameters with other numbers, and how many; those that are not there, or in another dtype, count whole."""
    found: dict[str, int] = {}
    for name, expected in cell.parameters.items():
        tensor = held.get(name)
        if tensor is None or tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            found[name] = expected.numel()
        elif unlike := int((tensor != expected).sum()):
            found[name] = unlike
    return found


def _activations(seen: int, expected: int) -> str:
    if not seen:
        return "as they are"
    return "quantised" if seen >= expected else "partly quantised"


@dataclass
class _Watch:
    """What was seen of Linear modules at work.

    Attributes:
        quantising: names of those whose output is not the product of what they were given.
        flattened: how many of them were given all tokens as rows of a matrix.
    """

    quantising: set[str] = field(default_factory=set)
    flattened: int = 0

    @property
    def note(self) -> str:
        """Why scales by token are none."""
        if not self.flattened:
            return ""
        return (
            f"{self.flattened} modules are given flattened inputs, over all tokens of which compressed-tensors takes "
            "one scale"
        )


@contextmanager
def _watched(model: Any) -> Iterator[_Watch]:
    """Look at every Linear module's input and output in a pass: one that quantises its input gives another product."""
    from torch import nn
    from torch.nn import functional

    watch = _Watch()
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if not isinstance(module, nn.Linear):
                continue

            def look(module: Any, args: tuple[Any, ...], output: Any, name: str = name) -> None:
                plain = functional.linear(args[0], module.weight, module.bias)
                if not bool((plain == output).all()):
                    watch.quantising.add(name)
                    watch.flattened += args[0].dim() == 2

            stack.callback(module.register_forward_hook(look).remove)
        yield watch


def _logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    import torch

    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits.clone()


def _tokens(loaded: LoadedModel) -> torch.Tensor:
    """Token ids of no meaning, the same every time, `(sequences, tokens)`."""
    import torch

    size = loaded.model.get_input_embeddings().num_embeddings
    return torch.randint(size, _TOKENS, generator=torch.Generator().manual_seed(11))


def _reference(checkpoint: Checkpoint, dtype: str) -> LoadedModel:
    """The checkpoint in memory, in its own dtype or rounded to another as transformers does it."""
    import torch

    from superweight.checkpoint.loading import LoadedModel, load_model, quiet

    if not dtype:
        return load_model(checkpoint)
    from transformers import AutoModelForCausalLM

    kind = getattr(torch, dtype)
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            checkpoint.directory, dtype=kind, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    model.eval().requires_grad_(False)
    return LoadedModel(model, None, checkpoint, kind, kind, torch.device("cpu"))


@contextmanager
def _silent_bars() -> Iterator[None]:
    """Keep bars that have no switch, and warnings that say what was asked for, off the terminal."""
    import io
    import warnings
    from contextlib import redirect_stderr

    with redirect_stderr(io.StringIO()), warnings.catch_warnings(action="ignore"):
        yield
