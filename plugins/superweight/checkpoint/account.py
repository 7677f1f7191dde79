"""What became of every tensor of a checkpoint: in the model bit for bit, in another dtype, or not used, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch

from superweight.checkpoint.bits import same_bits
from superweight.checkpoint.files import Checkpoint
from superweight.checkpoint.header import TensorInfo
from superweight.checkpoint.remnants import hints
from superweight.errors import InfraError

_SAME_TABLE = 1e-2  # relative; a table of rotary frequencies may have been saved in sixteen bits
_SMALLEST = 1e-300  # below it, a relative change has no meaning
_LISTED = 8  # names in a message


@dataclass(frozen=True)
class Account:
    """What became of the tensors of a checkpoint.

    Attributes:
        tensors: how many the files hold.
        exact: how many of them the model holds bit for bit.
        widened: held in a wider dtype, every value the same: name → from and to.
        rounded: held in a narrower dtype: name → from and to, and the largest relative change.
        unused: not in the model: name → why that is as it should be.
        not_read: other files of the directory that hold weights: name → why they were not read.
    """

    tensors: int
    exact: int
    widened: Mapping[str, str] = field(default_factory=dict)
    rounded: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    not_read: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @property
    def lines(self) -> list[str]:
        """What a reader of the figures must know, a sentence a kind; none if every tensor is held bit for bit."""
        found = []
        if self.rounded:
            found.append(f"{_some(self.rounded)} rounded on loading, as the model is run in one dtype")
        if self.widened:
            found.append(f"{_some(self.widened)} widened on loading, every value the same")
        found += [f"not used: {_count(names)}: {why}" for why, names in _by_reason(self.unused)]
        found += [f"not read: {_count(names)}: {why}" for why, names in _by_reason(self.not_read)]
        return found


def account(model: Any, checkpoint: Checkpoint, not_read: Mapping[str, str]) -> Account:
    """Hold a model that was just loaded against the files it came from, tensor by tensor, bit by bit.

    Args:
        model: the transformers model, every parameter as it was loaded.
        checkpoint: its files.
        not_read: weights of the directory that are not the checkpoint's, and why.

    Raises:
        InfraError: `unused-tensor` (the model makes no use of a tensor and nothing says that it should not),
            `corrupt` (the model holds something else than the file), or `unsupported` (codes without their quantiser).
    """
    held = _held(model)
    held |= _renamed([name for name in checkpoint.tensors if name not in held], held, checkpoint)
    unused = {name: _why_unused(name, model, checkpoint) for name in sorted(checkpoint.tensors) if name not in held}
    if unknown := [name for name, why in unused.items() if not why]:
        raise _unused(unknown, checkpoint)
    used = {name: _casting(name, held[name].detach().cpu(), checkpoint) for name in checkpoint.tensors if name in held}
    changed = {name: cast for name, cast in used.items() if cast is not None}
    return Account(
        tensors=len(checkpoint.tensors),
        exact=len(used) - len(changed),
        widened={name: str(cast) for name, cast in changed.items() if not cast.largest},
        rounded={name: str(cast) for name, cast in changed.items() if cast.largest},
        unused=unused,
        not_read=not_read,
    )


def _held(model: Any) -> dict[str, torch.Tensor]:
    """The model's tensors under the names that the checkpoint has for them, fused ones taken apart again.

    transformers keeps the conversion that it loaded a checkpoint with, and undoes it when a model is saved.
    """
    from transformers.core_model_loading import revert_weight_conversion

    held = dict(model.state_dict())
    buffers = {name: tensor for name, tensor in model.named_buffers() if name not in held}
    with torch.no_grad():
        return {**buffers, **held, **revert_weight_conversion(model, dict(held))}


def _renamed(
    missing: Sequence[str], held: Mapping[str, torch.Tensor], checkpoint: Checkpoint
) -> dict[str, torch.Tensor]:
    """Tensors that the model has under another name: those whose bits are the bits of one that no other name claims."""
    free = {name: tensor for name, tensor in held.items() if name not in checkpoint.tensors}
    found: dict[str, torch.Tensor] = {}
    for name in missing:
        fitting = sorted(free, key=lambda other: -_common_tail(name, other))
        stored = checkpoint.read(name)
        for other in fitting:
            if _common_tail(name, other) and _same(stored, free[other].detach().cpu()):
                found[name] = free.pop(other)
                break
    return found


def _common_tail(one: str, other: str) -> int:
    """How many of the last parts of two names agree: `h.0.attn.weight` is `transformer.h.0.attn.weight`, three deep."""
    pairs = zip(reversed(one.split(".")), reversed(other.split(".")), strict=False)
    count = 0
    for a, b in pairs:
        if a != b:
            break
        count += 1
    return count


def _same(stored: torch.Tensor, held: torch.Tensor) -> bool:
    return stored.shape == held.shape and same_bits(stored.to(held.dtype), held)


class _Casting(NamedTuple):
    """From which dtype to which, and the largest relative change of a value; 0 if all are the same."""

    stored: torch.dtype
    held: torch.dtype
    largest: float

    def __str__(self) -> str:
        step = f"{_label(self.stored)} to {_label(self.held)}"
        return f"{step}, a value by up to {self.largest:.2g} of itself" if self.largest else step


def _casting(name: str, held: torch.Tensor, checkpoint: Checkpoint) -> _Casting | None:
    """What loading did to a tensor; None if it is there bit for bit.

    Raises:
        InfraError: it holds other values, or codes that mean nothing without the scales that belong to them.
    """
    stored = checkpoint.read(name)
    if held.is_floating_point() and (not stored.is_floating_point() or stored.element_size() == 1):
        raise InfraError(
            f"{checkpoint.directory} stores {name} as {checkpoint.tensors[name].dtype}: codes of a quantiser, which "
            "mean nothing without their scales, and config.json names no quantiser that would apply them. Use the "
            "uncompressed checkpoint.",
            reason="unsupported",
        )
    if not _same(stored, held):
        raise _differs(name, stored, held, checkpoint)
    if stored.dtype == held.dtype:
        return None
    if same_bits(held.to(stored.dtype), stored):
        return _Casting(stored.dtype, held.dtype, 0.0)
    change = (held.double() - stored.double()).abs() / stored.double().abs().clamp_min(_SMALLEST)
    return _Casting(stored.dtype, held.dtype, float(change.max()))


def _differs(name: str, stored: torch.Tensor, held: torch.Tensor, checkpoint: Checkpoint) -> InfraError:
    apart = "of another shape" if stored.shape != held.shape else "with other values"
    return InfraError(
        f"{checkpoint.directory}: the loaded model holds {name} {apart}: what would be measured is not what the file "
        "holds. Save the checkpoint again with the installed transformers, or report this with the model's name.",
        reason="corrupt",
    )


def _why_unused(name: str, model: Any, checkpoint: Checkpoint) -> str:
    """Why it is right that the model makes no use of a tensor; empty if nothing says so."""
    leaf = name.rpartition(".")[2]
    if leaf.endswith("inv_freq") and any(_near(checkpoint.read(name), table) for table in _tables(model)):
        return "rotary frequencies, which the model computes: its own are the same"
    if leaf == "position_ids" and _is_count(checkpoint.read(name)):
        return "positions in their order, which the model counts itself"
    if leaf in ("bias", "masked_bias") and _is_causal_mask(checkpoint.read(name)):
        return "a causal mask, which the model makes itself"
    if leaf.endswith("inv_freq"):
        return ""
    declared = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    for pattern in sorted(map(str, declared)):
        if re.search(pattern, name):
            return f"{type(model).__name__} declares that it makes no use of tensors named {pattern}"
    return ""


def _tables(model: Any) -> Iterator[torch.Tensor]:
    yield from (tensor for name, tensor in model.named_buffers() if name.endswith("inv_freq"))


def _near(stored: torch.Tensor, own: torch.Tensor) -> bool:
    return stored.shape == own.shape and torch.allclose(stored.double(), own.cpu().double(), rtol=_SAME_TABLE, atol=0)


def _is_count(stored: torch.Tensor) -> bool:
    return torch.equal(stored.flatten().long(), torch.arange(stored.numel()))


def _is_causal_mask(stored: torch.Tensor) -> bool:
    """Whether a tensor is a lower triangle of ones, or the one large negative number that masks are filled with."""
    if stored.numel() == 1:
        return float(stored.double()) <= -1e4
    if stored.dim() < 2 or stored.shape[-1] != stored.shape[-2]:
        return False
    square = stored.reshape(-1, *stored.shape[-2:]).double()
    return bool((square == torch.ones_like(square[0]).tril()).all())


def _unused(names: list[str], checkpoint: Checkpoint) -> InfraError:
    listed = ", ".join(f"{name} ({_shaped(checkpoint.tensors[name])})" for name in names[:_LISTED])
    more = ", …" if len(names) > _LISTED else ""
    return InfraError(
        f"{checkpoint.directory}: the model that config.json describes makes no use of {len(names)} of "
        f"{len(checkpoint.tensors)} tensors: {listed}{more}. {hints(names, checkpoint)}"
        "What is measured must be what the file holds: correct config.json, or save the model without them.",
        reason="unused-tensor",
    )


def _shaped(info: TensorInfo) -> str:
    return f"{info.dtype} {'×'.join(map(str, info.shape)) or 'scalar'}"


def _label(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _some(changes: Mapping[str, str]) -> str:
    return f"{_count(list(changes))} ({next(iter(changes.values()))})"


def _count(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _by_reason(listed: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for name, why in listed.items():
        found.setdefault(why, []).append(name)
    return list(found.items())
