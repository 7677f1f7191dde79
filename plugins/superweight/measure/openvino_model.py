"""An OpenVINO model, called as transformers calls one: token ids in, logits out."""

from __future__ import annotations

import copy
import re
from contextlib import suppress
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from superweight.artefact.numbers import spacing
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell
from superweight.measure.effective_weight import Effective
from superweight.measure.reference import as_scalar
from superweight.plain_text import briefly

_SAID = ("INFERENCE_PRECISION_HINT", "DYNAMIC_QUANTIZATION_GROUP_SIZE", "EXECUTION_MODE_HINT", "KV_CACHE_PRECISION")
"""Properties that change figures, and are told."""
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
"""Of a run whose activations are left alone."""
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_INPUTS = ("input_ids", "attention_mask", "position_ids", "beam_idx")


class OpenVinoModel(nn.Module):
    """Runs an IR on the CPU, row by row as it comes, without a cache.

    Args:
        directory: holds `openvino_model.xml`, or one other `.xml`, and its weights.
        config: the reference's configuration.
        exact: leave activations alone, and compute in float32.
        dtype: arithmetic; the plugin's own choice for this processor if not given.

    Attributes:
        ir: the model as it was read.
        properties: what the plugin says of how it runs it.

    Raises:
        InfraError: openvino is not installed, or cannot read or compile the model, or the model wants other inputs
            than tokens (`missing-package`, `corrupt`, `unsupported`).
    """

    def __init__(self, directory: Path, config: Any, *, exact: bool, dtype: str | None = None) -> None:
        super().__init__()
        self.path = _xml(directory)
        self._options: dict[str, str] = dict(_EXACT) if exact else {}
        if dtype:
            self._options["INFERENCE_PRECISION_HINT"] = _PRECISIONS[dtype]
        self._openvino = _package()
        self.ir, self._compiled = self._compile()
        self._check_inputs()
        self.config = copy.deepcopy(config)
        self.config._attn_implementation = "openvino"
        self.properties = {name: said for name in _SAID if (said := self._property(name))}
        self.register_parameter("placed", nn.Parameter(torch.zeros(()), requires_grad=False))  # says where answers lie
        self.base_model = self

    def forward(self, input_ids: torch.Tensor, *, use_cache: bool = False, **more: Any) -> Any:
        """Logits of every token `(rows, length, vocabulary)`, float32, as an attribute of that name.

        Raises:
            ValueError: anything but tokens is given: masks and caches are the model's own affair.
        """
        if use_cache or any(value is not None for value in more.values()):
            raise ValueError(f"an OpenVINO model takes tokens alone; found {', '.join(more) or 'use_cache'}")
        return SimpleNamespace(logits=torch.from_numpy(self._run(input_ids.cpu().numpy().astype(np.int64))))

    def get_output_embeddings(self) -> None:
        """None: the head is inside."""

    def get_input_embeddings(self) -> None:
        """None: the table is inside."""

    def get_decoder(self) -> None:
        """None: the body is not to be had apart."""

    @property
    def dynamic_group(self) -> int:
        """How many activations share a scale where the plugin rounds them to INT8; 0 if it does not."""
        found = self.properties.get("DYNAMIC_QUANTIZATION_GROUP_SIZE", "0")
        return int(found) if found.isdecimal() else 0

    @property
    def rounds_activations(self) -> bool:
        """Whether activations are rounded: by the plugin, or by fake-quantise operations in the model."""
        return self.dynamic_group > 0 or any(op.get_type_name() == "FakeQuantize" for op in self.ir.get_ops())

    def effective(self, module: str, row: int, column: int, columns: int) -> Effective | CannotTell:
        """One scalar of a matrix, by a unit vector through that matrix alone, compiled as the whole model is.

        Args:
            module: `model.layers.2.mlp.down_proj`.
            row: output channel.
            column: input channel.
            columns: how many input channels there are.
        """
        named = re.compile(rf"(?:^|[._]){re.escape(module)}/")
        found = [op for op in self._products if named.search(op.friendly_name)]
        if len(found) != 1:
            return CannotTell(f"{self.path.name} has {len(found)} products that are named like {module}")
        try:
            answer = self._alone(found[0], column, columns)
        except RuntimeError as error:
            return CannotTell(f"{found[0].friendly_name} cannot be run alone ({briefly(error)})")
        scalar = as_scalar(torch.tensor(answer.reshape(-1)[row], dtype=torch.float32))
        arithmetic = "float32" if "f32" in self._precision else "bfloat16"
        return Effective(scalar, f"a unit vector through {found[0].friendly_name}", spacing(scalar.value, arithmetic))

    @cached_property
    def _products(self) -> list[Any]:
        return [op for op in self.ir.get_ops() if op.get_type_name() == "MatMul"]

    @property
    def _precision(self) -> str:
        said = self.properties.get("INFERENCE_PRECISION_HINT", "")
        return "f32" if said in ("float32", "f32", "float") else said

    def _alone(self, product: Any, column: int, columns: int) -> np.ndarray[Any, Any]:
        opset = self._openvino.opset13
        unit = opset.parameter([1, columns], np.float32)
        attributes = product.get_attributes()
        if attributes.get("transpose_a"):
            raise RuntimeError("its input is transposed")
        alone = opset.matmul(unit, product.input_value(1), False, attributes["transpose_b"])
        compiled = self._openvino.Core().compile_model(
            self._openvino.Model([alone], [unit]), "CPU", dict(self._options)
        )
        sent = np.zeros((1, columns), dtype=np.float32)
        sent[0, column] = 1
        return np.asarray(compiled(sent)[0])

    def _compile(self) -> tuple[Any, Any]:
        core = self._openvino.Core()
        try:
            ir = core.read_model(self.path)
        except RuntimeError as error:
            raise InfraError(
                f"{self.path} cannot be read as an OpenVINO model ({briefly(error)}). Convert it again.",
                reason="corrupt",
            ) from error
        try:
            return ir, core.compile_model(ir, "CPU", dict(self._options))
        except RuntimeError as error:
            raise InfraError(
                f"{self.path} cannot be compiled for this processor ({briefly(error)}).", reason="unsupported"
            ) from error

    def _check_inputs(self) -> None:
        names = [next(iter(one.get_names()), "?") for one in self.ir.inputs]
        if unknown := sorted(set(names) - set(_INPUTS)) or "input_ids" not in names:
            raise InfraError(
                f"{self.path} wants {', '.join(names)}; expected input_ids and no more than {', '.join(_INPUTS)}"
                f"{'' if unknown is True else f', not {unknown[0]}'}. Convert the model with its cache inside "
                "(stateful) or without one.",
                reason="unsupported",
            )
        self._names = names

    def _run(self, tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        rows, length = tokens.shape
        known = {
            "input_ids": tokens,
            "attention_mask": np.ones((rows, length), dtype=np.int64),
            "position_ids": np.tile(np.arange(length, dtype=np.int64), (rows, 1)),
            "beam_idx": np.arange(rows, dtype=np.int32),
        }
        request = self._compiled.create_infer_request()
        with suppress(RuntimeError):  # of a model without a state
            request.reset_state()
        try:
            answers = request.infer({name: known[name] for name in self._names})
        except RuntimeError as error:
            raise InfraError(
                f"{self.path} does not take {rows} rows of {length} tokens ({briefly(error)}). Convert it with dynamic "
                "shapes.",
                reason="unsupported",
            ) from error
        logits = next((found for output, found in answers.items() if "logits" in output.get_names()), answers[0])
        if logits.ndim != 3 or logits.shape[:2] != tokens.shape:
            raise InfraError(
                f"{self.path} answers with an array of shape {logits.shape}; expected logits ({rows}, {length}, "
                "vocabulary).",
                reason="unsupported",
            )
        return np.array(logits, dtype=np.float32)

    def _property(self, name: str) -> str:
        try:
            said = self._compiled.get_property(name)
        except RuntimeError:
            return ""
        return str(said.get_type_name() if hasattr(said, "get_type_name") else said)


def openvino_version() -> str:
    """What is installed; empty if nothing is."""
    try:
        return version("openvino")
    except PackageNotFoundError:
        return ""


def _package() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise InfraError(
            "an OpenVINO model needs the Python package openvino, which is not installed. Install the quantisers: "
            "pip install 'pytest-superweight[quantisers]'.",
            reason="missing-package",
        ) from error
    return openvino


def _xml(directory: Path) -> Path:
    """The model among the .xml files: tokenizers are converted to such files, too."""
    found = sorted(path for path in directory.glob("*.xml") if "tokenizer" not in path.name)
    named = directory / "openvino_model.xml"
    if named in found:
        return named
    if len(found) != 1:
        raise InfraError(
            f"{directory} holds {len(found)} OpenVINO models; expected openvino_model.xml, or one other.",
            reason="unsupported",
        )
    return found[0]
