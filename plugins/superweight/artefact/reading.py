"""Open an artefact of any format and ask it for single scalars, by coordinate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from superweight.artefact.container import Artefact
from superweight.artefact.formats import Place, format_of
from superweight.artefact.formats.dense import plain_shape
from superweight.artefact.gguf import GgufReader
from superweight.artefact.held import Held, Reader
from superweight.artefact.names import DownProjections
from superweight.artefact.openvino import IrReader
from superweight.cards.base import Coordinate
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell


class SafetensorsReader:
    """Reads a directory of safetensors: dense, or in any format of `artefact.formats`, module by module."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.artefact = Artefact(path)

    @property
    def about(self) -> str:
        """The formats of its down projections."""
        found: dict[str, int] = {}
        for modules in self._stored_alike():
            storing = format_of(self.artefact, modules[0])
            name = "an unknown format" if storing is None else storing.describe(self.artefact, modules[0])
            found[name] = found.get(name, 0) + len(modules)
        return "; ".join(sorted(found, key=lambda name: -found[name])) or "no down projections"

    def _stored_alike(self) -> Iterable[list[str]]:
        """Names of the modules, those together whose tensors have the same names, dtypes and shapes."""
        found: dict[object, list[str]] = {}
        for module in self._down.modules.values():
            leaves = self.artefact.leaves.get(module.name, {})
            alike = frozenset((leaf, info.dtype, info.shape) for leaf, info in leaves.items())
            found.setdefault((alike, module.stacked), []).append(module.name)
        return found.values()

    @property
    def sizes(self) -> Mapping[str, int | str]:
        """What config.json says of the model: its type, and how large it is in every direction; what it says of it."""
        artefact = self.artefact
        found = {name: artefact.size_of(*names) for name, names in _SIZES.items()}
        known: dict[str, int | str] = {name: size for name, size in found.items() if size is not None}
        kind = artefact.text_config.get("model_type")
        return {"model_type": kind, **known} if isinstance(kind, str) else known

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return self.artefact.bytes

    @property
    def read(self) -> int:
        """Bytes of tensors."""
        return self.artefact.read

    def scalar(self, where: Coordinate) -> Held | CannotTell:
        """As `Reader.scalar`."""
        if (turned := _turned(self.artefact)) is not None:
            return turned
        module = self._down.of(where.layer, where.expert)
        if module is None:
            return CannotTell(
                f"no tensor of {self.path.name} is named like the down projection of layer {where.layer}"
                + ("" if where.expert is None else f", expert {where.expert}")
            )
        storing = format_of(self.artefact, module.name)
        if storing is None:
            return CannotTell(f"{module.name} is stored in no format that is known here: {self._leaves(module.name)}")
        place = Place(module.name, where.row, where.column, where.expert if module.stacked else None)
        found = storing.scalar(self.artefact, place)
        if isinstance(found, CannotTell):
            return found
        return Held(module.name, storing.describe(self.artefact, module.name), found)

    def shape(self, where: Coordinate) -> tuple[int, int] | None:
        """Rows and columns of the down projection of a layer, and of an expert, where it is plain."""
        module = self._down.of(where.layer, where.expert)
        return None if module is None else plain_shape(self.artefact, module.name, stacked=module.stacked)

    def matrices(self) -> Iterator[tuple[int, int | None, tuple[int, int]]]:
        """Layer, expert and `(rows, columns)` of every down projection that is plain, of few experts a layer."""
        ordered = sorted(self._down.modules.items(), key=lambda item: (item[0][0], item[0][1] or 0))
        for (layer, expert), module in ordered:
            shape = plain_shape(self.artefact, module.name, stacked=module.stacked)
            if shape is not None and (expert is None or expert < _FEW_EXPERTS):
                yield layer, 0 if module.stacked else expert, shape

    @cached_property
    def _down(self) -> DownProjections:
        return DownProjections.among(self.artefact.tensors)

    def _leaves(self, module: str) -> str:
        tensors = self.artefact.tensors
        names = [name for name in tensors if name.startswith(f"{module}.")]
        return ", ".join(f"{name.removeprefix(f'{module}.')} {tensors[name].dtype}" for name in names)


_FEW_EXPERTS = 2
_SIZES = {
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model", "model_dim"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "moe_intermediate_size"),
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts"),
    "vocab_size": ("vocab_size",),
}
"""Sizes of a model, and what families call them in config.json."""


def _turned(artefact: Artefact) -> CannotTell | None:
    """Why no single weight is what it was: the settings say that matrices were multiplied with others."""
    transforms = artefact.settings.get("transform_config")
    groups = transforms.get("config_groups") if isinstance(transforms, Mapping) else None
    if not groups:
        return None
    return CannotTell(
        f"the settings of {artefact.path.name} rotate matrices (transform_config: {', '.join(map(str, groups))}), so "
        "no single weight is where it was"
    )


def open_reader(path: str | Path) -> Reader:
    """Open what lies at a path, by what it is.

    Raises:
        InfraError: there is nothing (`not-found`), or nothing that is known here (`unsupported`); as
            `checkpoint.shards.read_tensors` of a directory of safetensors.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise InfraError(f"{place} does not exist. Correct the path.", reason="not-found")
    if place.suffix == ".gguf" or (_has(place, "*.gguf") and not _has(place, "*.safetensors*")):
        return GgufReader(place)
    if place.suffix == ".xml" or (_has(place, "*.xml") and not _has(place, "*.safetensors*")):
        return IrReader(place)
    if place.suffix == ".onnx" or (_has(place, "*.onnx") and not _has(place, "*.safetensors*")):
        raise InfraError(
            f"{place} is an ONNX model, whose weights are not read here. Check what it was exported from, or run it.",
            reason="unsupported",
        )
    if place.is_dir():
        reader = SafetensorsReader(place)
        _ = reader.artefact.tensors
        return reader
    raise InfraError(
        f"{place} is a file of a kind that is not known here; expected a directory with safetensors, a GGUF file, or "
        "an OpenVINO IR.",
        reason="unsupported",
    )


def _has(place: Path, pattern: str) -> bool:
    return place.is_dir() and next(place.glob(pattern), None) is not None


__all__ = ["Held", "Reader", "SafetensorsReader", "open_reader"]
