"""`config.json` of an artefact: the checkpoint's own, and what compressed-tensors must know to read the codes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from superweight.artefact.writing.schemes import Scheme
from superweight.checkpoint.fetching.problems import missing_package

_EXPERT = re.compile(r"^(.*\.experts)\.\d+\..*$")


def quantization_config(scheme: Scheme, ignore: Sequence[str]) -> dict[str, Any]:
    """As compressed-tensors writes it, made by its own classes.

    Args:
        scheme: of every Linear module that is not ignored.
        ignore: names of modules that have no codes.

    Raises:
        InfraError: compressed-tensors is not installed (`missing-package`).
    """
    library = _library()
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme, QuantizationStatus

    group = QuantizationScheme(
        targets=["Linear"],
        weights=weight_arguments(scheme),
        input_activations=_input_arguments(scheme),
        format=scheme.layout,
    )
    config = QuantizationConfig(
        config_groups={"group_0": group},
        format=scheme.layout,
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=shortened(ignore),
    )
    dumped = config.model_dump(mode="json", exclude={"moe_sparsity_config"})
    return {**dumped, "quant_method": "compressed-tensors", "version": library.__version__}


def library_scheme(scheme: Scheme) -> Any:
    """The `QuantizationScheme` that decodes what is written."""
    _library()
    from compressed_tensors.quantization import QuantizationScheme

    return QuantizationScheme(
        targets=["Linear"],
        weights=weight_arguments(scheme),
        input_activations=_input_arguments(scheme),
        format=scheme.layout,
    )


def weight_arguments(scheme: Scheme) -> Any:
    """The `QuantizationArgs` of weights."""
    from compressed_tensors.quantization import QuantizationArgs

    return QuantizationArgs(
        num_bits=scheme.bits,
        type=scheme.kind,
        symmetric=scheme.symmetric,
        strategy=scheme.strategy,
        group_size=scheme.group_size,
    )


def _input_arguments(scheme: Scheme) -> Any:
    from compressed_tensors.quantization import QuantizationArgs

    if not scheme.activations:
        return None
    return QuantizationArgs(num_bits=8, type=scheme.kind, symmetric=True, strategy="token", dynamic=True)


def shortened(ignore: Sequence[str]) -> list[str]:
    """Names of modules; all experts of a layer as one expression, where several of them are named."""
    experts = [match[1] for name in ignore if (match := _EXPERT.match(name))]
    whole = {layer for layer in experts if experts.count(layer) > 1}
    short = [
        rf"re:{re.escape(match[1])}\..*" if (match := _EXPERT.match(name)) and match[1] in whole else name
        for name in ignore
    ]
    return list(dict.fromkeys(short))


def config_of(source: Mapping[str, Any], settings: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """`config.json` with the codes' settings, and the dtype in which they decode to the recipe's numbers.

    Args:
        source: the checkpoint's; its own dtype may be another than that of its weights.
        settings: the codes'.
        dtype: torch's name.
    """
    config = {name: value for name, value in source.items() if name != "torch_dtype"}
    return {**config, "dtype": dtype, "quantization_config": dict(settings)}


def _library() -> Any:
    try:
        import compressed_tensors
    except ImportError as error:
        raise missing_package("compressed-tensors", "Writing low-bit artefacts") from error
    return compressed_tensors
