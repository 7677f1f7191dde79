"""What an artefact says of itself in several places: settings, sizes, tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from superweight.artefact.container import SEPARATE, Artefact
from superweight.artefact.formats.compressed_tensors import is_compressed_tensors
from superweight.artefact.formats.packing_settings import stated
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.artefact.reading import SafetensorsReader
from superweight.checkpoint.quantisers import weights_differ
from superweight.checkpoint.shards import read_json

_ADVICE = "Correct the settings, or write the artefact again: a loader believes the settings."
_EMBEDDINGS = re.compile(r"(?:^|\.)(?:embed_tokens|wte|embed_in|word_embeddings)\.weight$")
_LAYERS = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def _disagrees(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    if artefact is None:
        return
    yield from subject.format_faults("metadata-disagrees", _ADVICE)
    yield from _status(artefact)
    yield from _settings_twice(artefact)
    yield from _sizes(subject.reader)


def _status(artefact: Artefact) -> Iterator[Fault]:
    """compressed-tensors' own word for whether the file has codes."""
    said = artefact.settings.get("quantization_status", "compressed")
    packed = [name for name in artefact.tensors if name.endswith(".weight_packed")]
    if packed and said != "compressed":
        yield Fault(
            f"{artefact.path.name}/config.json: quantization_status",
            f"expected 'compressed', as {len(packed)} modules have packed weights; found {said!r}",
            _ADVICE,
        )


def _settings_twice(artefact: Artefact) -> Iterator[Fault]:
    """config.json and a file beside it, of which loaders read one or the other."""
    said = artefact.config.get("quantization_config")
    own: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    for name in SEPARATE if own else ():
        path = artefact.path / name
        beside: Mapping[str, Any] = read_json(path) if path.is_file() else {}
        for key, value in stated(beside).items():
            if None not in (value, expected := stated(own)[key]) and value != expected:
                found = f"config.json says {expected!r}, {name} says {value!r}"
                yield Fault(f"{artefact.path.name}/{name}: {key}", f"expected the same in both; {found}", _ADVICE)


def _sizes(reader: object) -> Iterator[Fault]:
    """config.json's sizes beside the embedding and the layers that are there."""
    if not isinstance(reader, SafetensorsReader):
        return
    artefact = reader.artefact
    layers = {int(one[1]) for name in artefact.tensors if (one := _LAYERS.search(name)) is not None}
    said = reader.sizes.get("num_hidden_layers")
    if isinstance(said, int) and layers and not set(range(said)) <= layers:
        gone = sorted(set(range(said)) - layers)
        found = f"expected layers 0 to {said - 1}, found none of layer {', '.join(map(str, gone[:5]))}"
        yield Fault(f"{artefact.path.name}/config.json: num_hidden_layers", found, _ADVICE)
    for name, info in artefact.tensors.items():
        wide = reader.sizes.get("hidden_size")
        if _EMBEDDINGS.search(name) and len(info.shape) == 2 and isinstance(wide, int) and wide not in info.shape:
            if artefact.text_config.get("word_embed_proj_dim") in info.shape:
                continue  # OPT-350m widens its embeddings
            found = f"config.json says {wide}, {name} is {info.shape}"
            yield Fault(f"{artefact.path.name}/config.json: hidden_size", found, _ADVICE)


def _groups(subject: Subject) -> Iterator[Fault]:
    """Modules in different formats, of which a loader that decodes them takes one for all."""
    artefact = subject.artefact
    if artefact is not None and is_compressed_tensors(artefact) and weights_differ(artefact.settings):
        yield Fault(
            f"{artefact.path.name}/config.json: config_groups",
            "expected one way of storing weights; transformers reads all by the first group's where it decodes them "
            "while loading (CompressedTensorsConfig(dequantize=True))",
            "Load it as shipped, never with dequantize=True.",
        )


def _no_config(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    if artefact is not None and not (artefact.path / "config.json").is_file():
        found = "expected config.json beside the weights; found none"
        yield Fault(artefact.path.name, found, "Copy the config.json that was written with these weights.")


RULES = (
    Rule("metadata-disagrees", "A loader believes the settings and decodes other numbers.", "error", _disagrees),
    Rule("groups-differ", "A loader decodes all modules as the first group's, into other numbers.", "warning", _groups),
    Rule("config-missing", "Without config.json no loader knows what the weights are.", "error", _no_config),
)
