"""Open the uncompressed model that an artefact is compared with, without reading more than its headers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from superweight.artefact.reading import Reader, open_reader
from superweight.cards.base import Coordinate
from superweight.cards.promise import lost
from superweight.cards.source import DirectorySource, HubSource, Source
from superweight.checkpoint.fetching.cache import Cache
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell


def open_reference(source: Source, cache: Cache) -> Reader:
    """What a source leads to: a directory as it lies there, a GGUF file as its conversion to safetensors.

    Raises:
        InfraError: it cannot be had, as `checkpoint.resolve`, or it is compressed itself (`unsupported`).
    """
    reader = open_reader(_directory(source, cache))
    settings = getattr(getattr(reader, "artefact", None), "settings", {})
    if settings:
        method = settings.get("quant_method", "a quantiser")
        raise InfraError(
            f"{reader.path} is compressed itself (config.json has settings of {method}), so nothing can be compared "
            "with it. Give the model that both were made from, uncompressed.",
            reason="unsupported",
        )
    return reader


def fetched(repository: str, cache: Cache) -> Path:
    """A repository of the hub, `organisation/name` or `organisation/name@revision`, as a directory."""
    from superweight.checkpoint.fetching import hub

    name, _, revision = repository.partition("@")
    return hub.fetch(HubSource(kind="hub", repository=name, revision=revision or "main"), cache).directory


def expect_values(reference: Reader, values: Mapping[Coordinate, float]) -> None:
    """Hold the reference against what a list says of its super weights.

    Raises:
        InfraError: a weight has another sign, or is less than half or more than twice of what it should be: the list
            is of another model (`unsupported`).
    """
    for where, said in values.items():
        found = reference.scalar(where)
        if isinstance(found, CannotTell):
            continue  # comparing says so
        value = found.decoded.value
        if lost(said, value) or lost(value, said):
            raise InfraError(
                f"the list of super weights says {said:g} for {where}, and {reference.path} holds {value:g}: it is of "
                "another model. Give the list of this one, or the model that it is of.",
                reason="unsupported",
            )


def _directory(source: Source, cache: Cache) -> Path:
    """Where the files are; those of a directory or a repository are not hashed, as few of their bytes are needed."""
    from superweight.checkpoint.fetching import hub
    from superweight.checkpoint.sources import resolve

    if isinstance(source, DirectorySource):
        return Path(source.path).expanduser()
    if isinstance(source, HubSource) and source.gguf_file is None:
        return hub.fetch(source, cache).directory
    return resolve(source, cache).directory
