"""A checkpoint's model without its weights, and which tensors of the files hold which of its matrices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from superweight.cards.base import Coordinate
from superweight.checkpoint.files import Checkpoint
from superweight.errors import InfraError
from superweight.plain_text import briefly

if TYPE_CHECKING:
    import torch

    from superweight.checkpoint.architecture import Architecture, LinearWeight
    from superweight.compress import Matrix


@dataclass(frozen=True)
class Part:
    """One tensor of the checkpoint, and which rows of a matrix it holds."""

    tensor: str
    rows: slice

    @property
    def module(self) -> str:
        """Its name without what it is: `model.layers.2.mlp.down_proj`."""
        return self.tensor.removesuffix(".weight")


@dataclass(frozen=True)
class Source:
    """One matrix of the model, as recipes see it, and where its rows are.

    Attributes:
        parameter: name in the model.
        expert: which matrix of a mixture; None for a dense weight.
        shape: `(out, in)`.
        parts: tensors of the checkpoint, `(out, in)` too, top to bottom.
        super_weights: where the super weights of this matrix are.
    """

    parameter: str
    expert: int | None
    shape: tuple[int, int]
    parts: tuple[Part, ...]
    super_weights: tuple[Coordinate, ...] = ()

    def read(self, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> Matrix:
        """The matrix, from its tensors alone.

        Args:
            checkpoint: the files.
            dtype: to which it is rounded first; its own if None.

        Raises:
            InfraError: its parts are no floats of one dtype (`recipe-mismatch`).
        """
        import torch

        from superweight.compress import Matrix

        read = [checkpoint.read(part.tensor) for part in self.parts]
        if len({tensor.dtype for tensor in read}) > 1 or not read[0].is_floating_point():
            raise _unlike(checkpoint, self.parameter, f"its parts are {[str(tensor.dtype) for tensor in read]}")
        stored = read[0].clone() if len(read) == 1 else torch.cat(read)
        stored = stored if dtype is None else stored.to(dtype)
        return Matrix(self.parameter, stored, stored.dtype, expert=self.expert, super_weights=self.super_weights)


class Outline:
    """A model as its configuration makes it, of which no weight is read.

    Args:
        checkpoint: its files.

    Raises:
        InfraError: transformers does not know it (`unsupported`).
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.model = _without_weights(checkpoint)

    @cached_property
    def architecture(self) -> Architecture:
        """Found as in a loaded model: one layer of each kind runs, on weights of no meaning."""
        from superweight.checkpoint.architecture import Architecture

        return Architecture(self.model)

    @property
    def modules(self) -> list[str]:
        """Names of all modules, and of the parameters that hold the experts of a layer."""
        stacked = [weight.name for weight in self.architecture.linear_weights if weight.experts]
        return [*(name for name, _ in self.model.named_modules() if name), *stacked]

    @property
    def linear_modules(self) -> list[str]:
        """Names of the modules that quantisers would take, `lm_head` among them, and of what chooses experts."""
        from torch import nn

        linear = [name for name, module in self.model.named_modules() if isinstance(module, nn.Linear)]
        routers = [name.removesuffix(".weight") for name in self.architecture.routers]
        return list(dict.fromkeys([*linear, *routers]))

    @cached_property
    def weights(self) -> Sequence[LinearWeight]:
        """The linear weights of the decoder layers.

        Raises:
            InfraError: there is none, others are not understood, or two modules share one (`recipe-mismatch`).
        """
        architecture = self.architecture
        architecture.coverage.require(type(self.model).__name__)
        weights = architecture.linear_weights
        if not weights:
            raise InfraError(
                f"{self.checkpoint.directory} has no linear weight in its decoder layers.", reason="recipe-mismatch"
            )
        if len({id(weight.parameter) for weight in weights}) < len(weights):
            raise InfraError(
                f"modules of {type(self.model).__name__} share one weight, and a file would have it once and each "
                "module look for its own codes. Models with shared layers cannot be written.",
                reason="recipe-mismatch",
            )
        return weights

    def held(self, super_weights: Sequence[Coordinate]) -> dict[str, list[Coordinate]]:
        """Super weights by the name of the parameter that holds them.

        Raises:
            InfraError: a coordinate lies outside the model (`unsupported`).
        """
        found: dict[str, list[Coordinate]] = {}
        for where in sorted(set(super_weights), key=lambda one: one.key):
            found.setdefault(self.architecture.down_projection(where).name, []).append(where)
        return found

    def sources(self, weight: LinearWeight, super_weights: Sequence[Coordinate] = ()) -> Iterator[Source]:
        """The matrices of a weight, and the tensors that hold them.

        Raises:
            InfraError: they are stored in a way that compressed-tensors has no place for (`recipe-mismatch`), or are
                not there (`missing-tensor`).
        """
        _check_form(weight, type(self.model).__name__)
        rows, columns = weight.shape
        tensors = self._tensors(weight)
        for expert in range(weight.experts) if weight.experts else (None,):
            parts = [Part(tensor, rows) for tensor, (which, rows) in tensors.items() if which == expert]
            parts.sort(key=lambda part: part.rows.start)
            if [index for part in parts for index in range(rows)[part.rows]] != list(range(rows)):
                raise _unlike(self.checkpoint, weight.name, f"expert {expert} is not whole in {sorted(tensors)[:4]}")
            for part in parts:
                self._check_shape(part, columns)
            here = tuple(one for one in super_weights if one.expert == expert)
            yield Source(weight.name, expert, (rows, columns), tuple(parts), here)

    def module_names(self, module: str) -> list[str]:
        """What a module is called in the model and in the files, which may differ."""
        named = self._renamed(f"{module}.weight")
        return list(dict.fromkeys([module, *(name.removesuffix(".weight") for name in named)]))

    def stacked_modules(self, parameter: str) -> list[str]:
        """What the experts of a layer are called in the files, where each has tensors of its own; else nothing."""
        weight = next(one for one in self.architecture.linear_weights if one.name == parameter)
        if not weight.experts:
            return []
        try:
            return [name.removesuffix(".weight") for name in self._tensors(weight)]
        except InfraError:
            return []

    def _tensors(self, weight: LinearWeight) -> Mapping[str, tuple[int | None, slice]]:
        """Tensors of the checkpoint → which expert, and which rows of it, as transformers takes a parameter apart.

        Followed by the number of each row, in a tensor with one column.
        """
        import torch

        rows = weight.shape[0]
        experts = weight.experts
        count = torch.arange(rows * (experts or 1))
        numbered = count.view(experts, rows, 1) if experts else count.view(rows, 1)
        found: dict[str, tuple[int | None, slice]] = {}
        for name, numbers in self._taken_apart(weight.name, numbered).items():
            flat = numbers.flatten()
            first = int(flat[0])
            if not torch.equal(flat, torch.arange(first, first + len(flat))) or numbers.shape[-1] != 1:
                raise _unlike(self.checkpoint, weight.name, f"transformers reorders {name} as it loads it")
            if experts and len(flat) > rows:
                raise InfraError(
                    f"{name} holds the experts of a layer in one tensor, and compressed-tensors quantises one matrix "
                    f"an expert. Name {weight.name} in exclude, or use a checkpoint with a tensor for each expert.",
                    reason="recipe-mismatch",
                )
            start = first % rows
            which = first // rows if experts else None
            found[self._in_files(name)] = (which, slice(start, start + len(flat)))
        return found

    def _taken_apart(self, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        from transformers.core_model_loading import revert_weight_conversion

        try:
            found: dict[str, torch.Tensor] = revert_weight_conversion(self.model, {name: tensor})
        except Exception as error:
            raise _unlike(
                self.checkpoint, name, f"transformers cannot tell how it is stored ({briefly(error)})"
            ) from error
        return found

    def _renamed(self, name: str) -> list[str]:
        import torch

        try:
            return list(self._taken_apart(name, torch.zeros(1, 1)))
        except InfraError:
            return [name]

    def _in_files(self, name: str) -> str:
        """What a tensor is called in the files, which may lack or have the prefix of the model's body."""
        prefix = f"{getattr(self.model, 'base_model_prefix', '')}."
        for spelt in (name, name.removeprefix(prefix), f"{prefix}{name}"):
            if spelt in self.checkpoint.tensors:
                return spelt
        raise InfraError(
            f"{self.checkpoint.directory} holds no tensor {name!r}, which {type(self.model).__name__} is made of.",
            reason="missing-tensor",
        )

    def _check_shape(self, part: Part, columns: int) -> None:
        expected = (part.rows.stop - part.rows.start, columns)
        info = self.checkpoint.tensors[part.tensor]
        if info.shape != expected:
            raise InfraError(
                f"{info.file}: {part.tensor} should have the shape {expected} by config.json, found {info.shape}. The "
                "config and the weights belong to different models; get both again.",
                reason="corrupt",
            )


def _check_form(weight: LinearWeight, model: str) -> None:
    from torch import nn

    if weight.fused is not None:
        raise InfraError(
            f"{weight.name} of {model} holds several matrices one below the other, for which compressed-tensors has no "
            "place. Name it in exclude.",
            reason="recipe-mismatch",
        )
    if weight.experts is None and (weight.transposed or not isinstance(weight.module, nn.Linear)):
        raise InfraError(
            f"{weight.name} of {model} belongs to a {type(weight.module).__name__}"
            f"{', stored (in, out)' if weight.transposed else ''}, and compressed-tensors quantises Linear modules, "
            "stored (out, in), alone. Name it in exclude, or use --format gguf.",
            reason="recipe-mismatch",
        )


def _unlike(checkpoint: Checkpoint, name: str, what: str) -> InfraError:
    return InfraError(
        f"{checkpoint.directory}: {name} cannot be written with codes: {what}. Name it in exclude.",
        reason="recipe-mismatch",
    )


def _without_weights(checkpoint: Checkpoint) -> Any:
    """The model on the meta device, but for what runs when its structure is looked at."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from superweight.checkpoint.loading import quiet

    try:
        with quiet(), torch.device("meta"):
            config = AutoConfig.from_pretrained(checkpoint.directory, local_files_only=True, trust_remote_code=False)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise InfraError(
            f"transformers cannot make the model of {checkpoint.directory / 'config.json'} ({briefly(error)}). Code in "
            "the repository is never run; models that need it cannot be written.",
            reason="unsupported",
        ) from error
    _give_memory(model)
    return model.eval().requires_grad_(False)


def _give_memory(model: Any) -> None:
    """Memory for one decoder layer of each kind and for what lies around them; the rest stays without."""
    import torch

    from superweight.checkpoint.architecture import decoder_layers
    from superweight.checkpoint.observe import signature

    prefix, layers = decoder_layers(model)
    first = {signature(layer): number for number, layer in reversed(list(enumerate(layers)))}
    idle = tuple(f"{prefix}.{number}." for number in range(len(layers)) if number not in first.values())
    for name, module in model.named_modules():
        if f"{name}.".startswith(idle):
            continue
        for leaf, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if tensor.device.type != "meta":
                continue
            real = torch.empty_like(tensor, device="cpu")
            if f"{name}.".startswith(f"{prefix}.") or real.numel() < 1 << 16:
                real = real.normal_(std=0.02) if real.is_floating_point() else real.zero_()
            if isinstance(tensor, torch.nn.Parameter):
                setattr(module, leaf, torch.nn.Parameter(real, requires_grad=False))
            else:
                module.register_buffer(leaf, real, persistent=leaf not in module._non_persistent_buffers_set)
    model.tie_weights()
