"""LoRA adapters beside an artefact: what they add to single scalars, without loading either."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from superweight.artefact.adding import Way
from superweight.artefact.container import Artefact
from superweight.artefact.names import DownProjections
from superweight.artefact.numbers import TORCH
from superweight.artefact.reading import Held, Reader
from superweight.cards.base import Coordinate
from superweight.checkpoint.header import TensorInfo, read_header
from superweight.checkpoint.shards import pickle_refused, read_json
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell

CONFIG, WEIGHTS, RECORD = "adapter_config.json", "adapter_model.safetensors", "superweight.json"
PREFIX = "base_model.model."
"""Before every module's name in an adapter's file."""

_LORA = re.compile(r"\.(?:lora_\w+(?:\.weight)?|weight|bias)$")
_LAYER = re.compile(r"(?:layers|h|blocks|block|layer)\.\d+\..*")
_WAY = Way("float32", "float32")
_ELSE = (
    "use_dora", "lora_bias", "modules_to_save", "layers_to_transform", "exclude_modules", "layer_replication",
    "trainable_token_indices", "target_parameters", "alora_invocation_tokens", "use_bdlora", "arrow_config",
)  # fmt: skip
"""Settings by which an adapter is more than A and B on the modules that it names."""


class Adapter:
    """A directory that PEFT's `save_pretrained` wrote.

    Args:
        path: the directory.

    Raises:
        InfraError: there is none, or not both of its files (`not-found`, `pickle`); they are not what they should be
            (`corrupt`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in (CONFIG, WEIGHTS):
            if not (path / name).is_file():
                if (path / "adapter_model.bin").is_file():
                    raise pickle_refused(str(path), ["adapter_model.bin"])
                raise InfraError(
                    f"{path} holds no {name}. Give the directory of a LoRA adapter, as PEFT saves it.",
                    reason="not-found",
                )
        self.config = read_json(path / CONFIG)
        self._files = _Files(path)

    @property
    def bytes(self) -> int:
        """Size on disk of all files."""
        return self._files.bytes

    @property
    def read(self) -> int:
        """Bytes of tensors that were looked at so far."""
        return self._files.read

    @cached_property
    def modules(self) -> list[str]:
        """Names of the modules that it adds to, as the loaded model has them."""
        names = (name.removeprefix(PREFIX) for name in self._files.tensors)
        return list(dict.fromkeys(_LORA.sub("", name) for name in names))

    def correction(self, where: Coordinate, tensor: str = "") -> tuple[list[float], str] | CannotTell:
        """What each term adds to one scalar, and in words what does; nothing where there is no term.

        Args:
            where: the scalar.
            tensor: what holds it in the base.

        Raises:
            InfraError: the tensors do not fit each other, or the settings (`corrupt`).
        """
        if unknown := self._not_plain():
            return CannotTell(f"the adapter {self.path.name} {unknown}, which is not read here")
        found = self._modules_of(where, tensor)
        if not found:
            return [], ""
        module, *others = found
        if others:
            return CannotTell(f"the adapter {self.path.name} has terms for {', '.join(found)}: which is meant?")
        if more := self._more(module):
            return CannotTell(f"the adapter {self.path.name} holds {more}, which is not read here")
        if not self._aims_at(module):
            return CannotTell(f"{self.path.name} has terms for {module}, which its target_modules leave out")
        rank, scaling = self._rank(module), self._scaling(module)
        a, b = (self._tensor(module, side) for side in "AB")
        if a.shape[0] != rank or b.shape[1] != rank:
            raise InfraError(
                f"{self.path}: {module} should have the rank {rank} by {CONFIG}; found A of shape {a.shape} and B of "
                f"shape {b.shape}. Both files must be of one adapter.",
                reason="corrupt",
            )
        if where.row >= b.shape[0] or where.column >= a.shape[1]:
            return CannotTell(f"{where} lies outside the adapter's {module} of shape ({b.shape[0]}, {a.shape[1]})")
        terms = [self._element(module, k, where) * scaling for k in range(rank)]
        return [term for term in terms if term], f"a LoRA of rank {rank}"

    def _modules_of(self, where: Coordinate, tensor: str) -> list[str]:
        """Those that a tensor of the base is: by the name from the layer's number on, whatever the model is called."""
        wanted = _LAYER.search(tensor)
        if wanted is None:  # a name that only its own format has
            module = DownProjections.among(self.modules).of(where.layer, where.expert)
            return [] if module is None else [module.name]
        name = wanted[0].removesuffix(".weight")
        return [module for module in self.modules if (found := _LAYER.search(module)) is not None and found[0] == name]

    def _rank(self, module: str) -> int:
        rank = _by_pattern(self.config.get("rank_pattern"), module, self.config.get("r"))
        if type(rank) is not int or rank < 1:
            raise InfraError(f"{self.path / CONFIG} should say which rank r {module} has", reason="corrupt")
        return rank

    def _scaling(self, module: str) -> float:
        alpha = _by_pattern(self.config.get("alpha_pattern"), module, self.config.get("lora_alpha"))
        if not isinstance(alpha, int | float):
            raise InfraError(f"{self.path / CONFIG} should say which lora_alpha {module} has", reason="corrupt")
        rank = self._rank(module)
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def _not_plain(self) -> str:
        """What makes it more than plain LoRA; empty if nothing does."""
        if self.config.get("peft_type") != "LORA":
            return f"is of the kind {self.config.get('peft_type')}"
        found = [name for name in _ELSE if self.config.get(name)]
        return f"sets {', '.join(found)}" if found else ""

    def _more(self, module: str) -> str:
        """A tensor that a module has besides A and B; empty if there is none."""
        mine = [name for name in self._files.tensors if name.startswith(f"{PREFIX}{module}.")]
        return next((name for name in mine if not name.endswith((".lora_A.weight", ".lora_B.weight"))), "")

    def _aims_at(self, module: str) -> bool:
        targets = self.config.get("target_modules")
        if isinstance(targets, str):
            return targets == "all-linear" or _matches(rf"(?:{targets})\Z", module)
        named = [str(target) for target in targets or ()]
        return any(module == target or module.endswith(f".{target}") for target in named)

    def _tensor(self, module: str, side: str) -> TensorInfo:
        name = f"{PREFIX}{module}.lora_{side}.weight"
        info = self._files.tensors.get(name)
        if info is None or len(info.shape) != 2 or info.dtype not in TORCH:
            raise InfraError(
                f"{self.path / WEIGHTS} should hold {name}, a matrix of floats. Save the adapter again.",
                reason="corrupt",
            )
        return info

    def _element(self, module: str, term: int, where: Coordinate) -> float:
        """B[row, term] · A[term, column]."""
        a = self._files.number(f"{PREFIX}{module}.lora_A.weight", term, where.column)
        return a * self._files.number(f"{PREFIX}{module}.lora_B.weight", where.row, term)


class AdaptedReader:
    """Reads an artefact as it is with an adapter: each scalar, plus what the adapter adds to it, in float32.

    The base's scalar is taken as its format decodes it, in the dtype of its scales; the adapter as PEFT keeps it.

    Attributes:
        base: the artefact's own reader.
        adapter: the adapter.
    """

    def __init__(self, base: Reader, adapter: Adapter) -> None:
        self.base, self.adapter = base, adapter
        self.path = base.path

    def __getattr__(self, name: str) -> Any:
        """Whatever else can be asked of the base."""
        return getattr(self.base, name)

    @property
    def about(self) -> str:
        """The base's format, and that there is an adapter."""
        return f"{self.base.about}, with the adapter {self.adapter.path.name}"

    @property
    def bytes(self) -> int:
        """Size on disk of both."""
        return self.base.bytes + self.adapter.bytes

    @property
    def read(self) -> int:
        """Bytes of tensors of both."""
        return self.base.read + self.adapter.read

    def scalar(self, where: Coordinate) -> Held | CannotTell:
        """As `Reader.scalar`."""
        found = self.base.scalar(where)
        if isinstance(found, CannotTell):
            return found
        correction = self.adapter.correction(where, found.tensor)
        if isinstance(correction, CannotTell):
            return correction
        terms, source = correction
        return _with(found, terms, source) if source else found


class _Files(Artefact):
    """The files of an adapter, whose weights have a name of their own."""

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by its name, from the header.

        Raises:
            InfraError: the header lies (`corrupt`).
        """
        return read_header(self.path / WEIGHTS)


def _with(found: Held, terms: list[float], source: str) -> Held:
    decoded = found.decoded
    value = _WAY.restored(decoded.value, terms)
    code = f"{decoded.code}: {decoded.value:.7g} {math.fsum(terms):+.7g}".removeprefix(": ")
    stored_as = f"{found.stored_as}, plus {source}, added in float32"
    return Held(found.tensor, stored_as, decoded._replace(value=value, dtype="float32", code=code))


def _by_pattern(patterns: Any, module: str, default: Any) -> Any:
    """What PEFT looks up for a module: the first pattern that its name, or the end of it, matches."""
    for pattern, value in patterns.items() if isinstance(patterns, Mapping) else ():
        if _matches(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _matches(pattern: str, module: str) -> bool:
    try:
        return re.match(pattern, module) is not None
    except re.error as error:
        raise InfraError(
            f"{CONFIG} selects modules by {pattern!r}, which is no pattern ({error})", reason="corrupt"
        ) from error
