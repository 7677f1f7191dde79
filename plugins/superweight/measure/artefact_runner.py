"""Run a cell by a compressed checkpoint that somebody made, as its own runtime loads it, beside its reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from superweight.artefact.container import Artefact
from superweight.artefact.reading import Reader, open_reader
from superweight.cards import Cell, Coordinate
from superweight.checkpoint.artefact_files import ArtefactFiles, artefact_files, fetch_artefact
from superweight.checkpoint.bits import all_finite
from superweight.checkpoint.files import Checkpoint
from superweight.checkpoint.loading import LoadedModel
from superweight.checkpoint.quantised_loading import QuantisedModel, load_quantised
from superweight.checkpoint.quantisers import library_versions, settings_of
from superweight.checkpoint.quiet import quiet
from superweight.checkpoint.same_model import check_vocabulary, tokenizer_differences
from superweight.errors import InfraError
from superweight.evaluate import ResidentModel
from superweight.evidence.measured import StoredPoint
from superweight.forward.runner import (
    CannotTell,
    Inspection,
    Pair,
    Points,
    Progress,
    Prompt,
    Scalar,
    TextWindows,
    WindowScore,
)
from superweight.forward.scorer import Scorer
from superweight.measure.artefact_lint import look_for_faults
from superweight.measure.artefact_points import both_points, file_point, reload_point
from superweight.measure.effective_weight import Effective, effective
from superweight.measure.environment import environment
from superweight.measure.inventory import Inventory, of_gguf, of_openvino, of_safetensors
from superweight.measure.openvino_model import OpenVinoModel, openvino_version
from superweight.measure.quantised import made_with, quantised_directory
from superweight.measure.reference import Reference

if TYPE_CHECKING:
    from superweight.cards.methods import Method

_ROUNDING = {False: 3e-2, True: 0.25}
"""Share of the logits' spread that may change where nothing should: of weights alone in any arithmetic, and where
activations are rounded, which neighbours of a rounding boundary make jump."""


@dataclass(frozen=True)
class Options:
    """How an artefact is run.

    Attributes:
        dequantised: weights are decoded first, and activations left alone.
        dtype: arithmetic; its own if None.
        also_changes: patterns of plain parameters that are meant to differ from the reference's.
    """

    dequantised: bool = False
    dtype: str | None = None
    also_changes: tuple[str, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)
    """With what it was made, in how many seconds, where the gate had it made."""

    @classmethod
    def of(cls, method: Method, made: Mapping[str, Any] | None = None) -> Options:
        """Those that a recipe's kind has."""
        load = getattr(method, "load", "as-shipped")
        also = tuple(getattr(method, "also_changes", ()))
        return cls(load == "dequantised", getattr(method, "dtype", None), also, made or {})


def open_artefact(reference: Reference, cell: Cell) -> ArtefactRunner:
    """What runs a cell of the kind `artefact`.

    Raises:
        InfraError: the artefact cannot be had, or is not whole.
    """
    method: Any = cell.recipe.method
    return ArtefactRunner(reference, fetch_artefact(method.source, reference.cache), Options.of(method))


def open_quantised(reference: Reference, cell: Cell) -> ArtefactRunner:
    """What runs a cell of the kind `quantiser`: its tool is run, unless it was before, and what it wrote is gated.

    Raises:
        InfraError: the tool cannot be run, or what it wrote is not whole.
    """
    method: Any = cell.recipe.method
    directory = quantised_directory(reference, method)
    made = made_with(directory)
    files = artefact_files(directory, f"made by recipe '{cell.recipe.id}' of kind '{method.kind}'", reference.cache)
    return ArtefactRunner(reference, files, Options.of(method, made))


class ArtefactRunner:
    """Runs one cell by the files of a compressed checkpoint.

    Args:
        reference: the model that it was made from, uncompressed.
        files: the compressed checkpoint.
        options: how it is run.
    """

    def __init__(self, reference: Reference, files: ArtefactFiles, options: Options | None = None) -> None:
        self._reference = reference
        self._files = files
        self._options = options or Options()
        self._broken: InfraError | None = None
        self._opened: QuantisedModel | None = None

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The files' hash, how they are loaded and by what, and the reference's own identity."""
        return {
            "artefact": self._files.content_hash,
            "container": self._files.container,
            "dequantised": self._options.dequantised,
            "artefact_dtype": self._options.dtype,
            "also_changes": list(self._options.also_changes),
            "libraries": self._libraries,
            "protected": [str(where) for where in self._reference.protected],
            **self._reference.identity,
        }

    @cached_property
    def about(self) -> Mapping[str, Any]:
        """What the report says of the artefact, and of how it was run."""
        model, loaded = self._model, self._model.loaded
        return {
            "origin": self._files.origin,
            "content_hash": self._files.content_hash,
            "format": self._format,
            "bytes": self._files.bytes,
            **({"made": dict(self._options.made)} if self._options.made else {}),
            "loaded_by": model.how,
            "activations": model.activations,
            "dtype": _name(loaded.dtype),
            "compute_dtype": _name(loaded.compute_dtype),
            "evaluation": str(self._resident.scorer.sharing),
            "note": "",
            "loading": [f"{self._files.path.name}: {note}" for note in model.notes],
            "environment": {**environment(self._reference.loaded.device), **model.libraries},
        }

    @cached_property
    def cannot(self) -> Mapping[str, str]:
        """Divergence, where the reference cannot give it; text from OpenVINO; activations that a load leaves out."""
        found = {}
        if not self._reference.memory.model.separable:
            found["divergence"] = "the reference's head cannot be run apart from its body"
        if self._files.container == "openvino":
            found["generation"] = "an OpenVINO model is run without a cache here, a whole text at a time"
        if self._model.activations == "not rounded though the file asks for it":
            found["rounding of activations"] = "the file asks for it, and weights that are decoded first leave it out"
        return found

    @property
    def vocabulary(self) -> int:
        """The reference's, which the artefact must share."""
        return self._reference.memory.model.vocabulary

    def score_windows(self, text: TextWindows, batch: Sequence[int], *, compare: bool = False) -> list[WindowScore]:
        """As `Runner.score_windows`; the reference's states are taken first, and each head reads its own model's."""
        uncompressed = self._reference.memory.model
        compare = compare and uncompressed.separable
        if compare and uncompressed.reference.missing(text):
            self._reference.memory.undo()
            uncompressed.remember(text)
        if compare:
            self._reference.memory.undo()  # whose head is read
        parts = [batch] if self._resident.separable else [[index] for index in batch]  # of which logits are held
        return [score for part in parts for score in self._resident.score_windows(text, part, compare=compare)]

    def score_continuations(
        self, pairs: Sequence[Pair], *, max_length: int, progress: Progress | None = None
    ) -> list[tuple[float, bool]]:
        """As `Runner.score_continuations`; one pair a pass, where tokens of one pass change each other."""
        return self._resident.score_continuations(
            pairs, max_length=max_length, progress=progress, alone=self._model.spans_tokens
        )

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """As `Runner.generate`."""
        if why := self.cannot.get("generation"):
            raise InfraError(f"{self._files.path}: {why}", reason="unsupported")
        return self._resident.generate(prompts)

    def stored(self, where: Coordinate) -> Scalar | CannotTell:
        """What the loaded model multiplies with; where that cannot be told, what its file holds."""
        found = self._effective(where)
        if not isinstance(found, CannotTell):
            return found.scalar
        file = self._in_file(where, self._reference.protected[where].original)
        if file.value is None:
            return CannotTell(f"{found.reason}; in the file: {file.reason}")
        return Scalar(file.value, file.bits, file.dtype)

    def points(self, where: Coordinate, original: Scalar) -> Points:
        """A super weight in the file, and after reload."""
        file = self._in_file(where, original)
        found = self._effective(where)
        rounding = 0.0 if isinstance(found, CannotTell) else found.rounding
        return both_points(file, reload_point(found, file, original), rounding)

    def inspect(self) -> Inspection:
        """What the file keeps as codes, what else differs from the reference, in how many bytes, and faults of it."""
        inventory = self._inventory()
        hooks = self._rounded(inventory.coded) if self._rounds else []
        sanity = inventory.sanity(self._options.also_changes, hooks, _non_finite(self._model.loaded.model))
        findings, unchecked = look_for_faults(self._reader, self._reference)
        figures = {
            "format": self._format,
            "bytes on disk": self._files.bytes,
            "loaded by": self._model.how,
            "activations": self._model.activations,
        }
        return Inspection(sanity, inventory.size(), figures, (), findings, unchecked)

    def another_way(self) -> AbstractContextManager[str]:
        """Inside the block, another attention kernel, where the runtime has one."""
        return nullcontext("") if self._files.container == "openvino" else self._resident.another_way()

    def close(self) -> None:
        """Let go of the compressed model."""
        self._opened = None
        vars(self).pop("_resident", None)

    @property
    def _model(self) -> QuantisedModel:
        """The model, loaded when it is first asked for; what cannot be loaded is not tried twice."""
        if self._broken is not None:
            raise self._broken
        if self._opened is None:
            try:
                self._opened = self._open()
            except InfraError as error:
                self._broken = error
                raise
        return self._opened

    @cached_property
    def _resident(self) -> ResidentModel:
        model, uncompressed = self._model, self._reference.memory.model
        rounds = model.activations in ("rounded", "not known")
        with quiet():
            scorer = Scorer(model.loaded, batch_tokens=1 if model.spans_tokens else None, tolerance=_ROUNDING[rounds])
        return ResidentModel(scorer, uncompressed.reference, uncompressed.scorer)

    @property
    def _rounds(self) -> bool:
        return self._model.activations in ("rounded", "not known")

    def _open(self) -> QuantisedModel:
        if self._files.container == "openvino":
            return self._open_openvino()
        if self._files.container == "onnx":
            raise InfraError(
                f"{self._files.path} is an ONNX model, which cannot be gated yet. Gate the checkpoint that it was "
                "exported from, or an OpenVINO model of it (openvino.convert_model).",
                reason="unsupported",
            )
        return load_quantised(
            self._files,
            self._reference.loaded,
            self._reference.cache,
            dequantised=self._options.dequantised,
            dtype=self._options.dtype,
        )

    def _open_openvino(self) -> QuantisedModel:
        reference, directory = self._reference.loaded, self._files.path
        if reference.device.type != "cpu":
            raise InfraError(
                f"{directory} is run by OpenVINO on the CPU, and its reference on {reference.device}: gate both with "
                "--superweight-device cpu.",
                reason="unsupported",
            )
        model = OpenVinoModel(
            directory, reference.model.config, exact=self._options.dequantised, dtype=self._options.dtype
        )
        check_vocabulary(model.path, _answers(model), self.vocabulary)
        checkpoint = Checkpoint(directory, self._files.origin, self._files.content_hash)
        said = ", ".join(f"{name} {value}" for name, value in model.properties.items())
        return QuantisedModel(
            LoadedModel(model, reference.tokenizer, checkpoint, torch.float32, torch.float32, reference.device),
            how=f"openvino {openvino_version()} on the CPU, {said}",
            activations="rounded" if model.rounds_activations else "as they are",
            spans_tokens=False,  # the plugin's groups lie within a token
            libraries={"openvino": openvino_version()},
            notes=tokenizer_differences(directory, reference.tokenizer),
        )

    @cached_property
    def _libraries(self) -> dict[str, str]:
        """Versions of what loads and runs the files."""
        match self._files.container:
            case "openvino":
                return {"openvino": openvino_version()}
            case "gguf":
                return library_versions("", ("gguf", "transformers"))
            case "onnx":
                return {}
        return library_versions(settings_of(self._files.path).method, ("transformers", "accelerate"))

    @cached_property
    def _reader(self) -> Reader | CannotTell:
        """The files, read without running them."""
        try:
            return open_reader(self._files.path)
        except InfraError as error:
            return CannotTell(str(error))

    @property
    def _format(self) -> str:
        return self._files.container if isinstance(self._reader, CannotTell) else self._reader.about

    def _in_file(self, where: Coordinate, original: Scalar) -> StoredPoint:
        module = self._reference.loaded.architecture.down_projection(where).name.removesuffix(".weight")
        return file_point(self._reader, where, original, module)

    def _effective(self, where: Coordinate) -> Effective | CannotTell:
        architecture = self._reference.loaded.architecture
        weight, loaded = architecture.down_projection(where), self._model.loaded
        if isinstance(loaded.model, OpenVinoModel):
            if where.expert is not None:
                return CannotTell("the experts of an OpenVINO model cannot be looked at one by one")
            module = weight.name.rpartition(".")[0]
            return loaded.model.effective(module, where.row, where.column, weight.shape[1])
        with quiet():
            return effective(loaded, weight, where.row, where.column, where.expert, rounds=self._rounds)

    def _rounded(self, coded: list[str]) -> list[str]:
        """Modules whose activations are rounded: those of codes that multiply, which embeddings do not."""
        multiplying = {weight.name for weight in self._reference.loaded.architecture.linear_weights}
        return [name.removesuffix(".weight") for name in coded if name in multiplying]

    def _inventory(self) -> Inventory:
        reference = Artefact(self._reference.checkpoint.directory)
        tied = _tied(self._reference.loaded.model, reference)
        loaded = self._model.loaded
        match self._files.container:
            case "openvino":
                return of_openvino(loaded.model.ir, reference, tied)
            case "gguf":
                layers = len(self._reference.loaded.architecture.layers)
                return of_gguf(self._files.path, Artefact(loaded.checkpoint.directory), reference, tied, layers)
        return of_safetensors(Artefact(self._files.path), reference, tied)


def _tied(model: Any, reference: Artefact) -> dict[str, str]:
    """The head's name, where the reference keeps it under that of the embeddings."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not table.weight:
        return {}
    names = {f"{name}.weight" for name, module in model.named_modules() if module in (head, table)}
    kept = sorted(names & set(reference.tensors))
    return dict.fromkeys(names - set(kept), kept[0]) if kept else {}


def _non_finite(model: torch.nn.Module) -> list[str]:
    """Parameters that hold NaN or infinity, and scales beside them."""
    found = []
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        for inner, part in _parts(name, tensor.detach()):
            if part.is_floating_point() and not all_finite(part.float() if part.element_size() == 1 else part):
                found.append(inner)
    return found


def _parts(name: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """A tensor itself; of a class that is made of others, those."""
    if type(tensor) in (torch.Tensor, torch.nn.Parameter) or not hasattr(tensor, "__tensor_flatten__"):
        return [(name, tensor)] if tensor.dtype.is_floating_point and type(tensor) is torch.Tensor else []
    return [
        found for inner in tensor.__tensor_flatten__()[0] for found in _parts(f"{name}.{inner}", getattr(tensor, inner))
    ]


def _answers(model: OpenVinoModel) -> int:
    tokens = torch.zeros(1, 2, dtype=torch.long)
    return int(model(input_ids=tokens).logits.shape[-1])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
