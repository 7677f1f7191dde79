"""The weights' files of a directory: safetensors, single or sharded, and why others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from superweight.checkpoint.header import TensorInfo, read_header
from superweight.errors import InfraError

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_tensors(directory: Path) -> dict[str, TensorInfo]:
    """Every tensor of the directory's safetensors files, single or sharded; errors as in `open_directory`."""
    files = read_files(directory)
    found: dict[str, TensorInfo] = {}
    for file, held in files.items():
        if again := next((name for name in held if name in found), None):
            raise InfraError(
                f"{found[again].file} and {file.name} both hold {again}: one of the files is of another run, and it is "
                "not known which. Delete the directory, and get or write it again.",
                reason="corrupt",
            )
        found |= held
    return found


def read_files(directory: Path) -> dict[Path, dict[str, TensorInfo]]:
    """The tensors of each safetensors file that belongs to the directory's model; errors as in `open_directory`."""
    if (directory / _WEIGHTS).is_file():
        return {directory / _WEIGHTS: read_header(directory / _WEIGHTS)}
    if (directory / _INDEX).is_file():
        return _read_shards(directory)
    raise _no_weights(directory)


def read_index(directory: Path) -> dict[str, str]:
    """Which file holds a tensor, as the index says; empty if there is none.

    Raises:
        InfraError: it is no index (`corrupt`).
    """
    index = directory / _INDEX
    if not index.is_file():
        return {}
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(_is_file_name(shard) for shard in names.values()):
        raise InfraError(f"{index} should map tensor names to file names under 'weight_map'.", reason="corrupt")
    return names


def read_json(path: Path) -> dict[str, Any]:
    """An object in a JSON file.

    Raises:
        InfraError: it is no JSON, or no object (`corrupt`).
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InfraError(f"{path} is not valid JSON ({error}). Get the file again.", reason="corrupt") from error
    if not isinstance(found, dict):
        raise InfraError(f"{path} should hold a JSON object, found {type(found).__name__}.", reason="corrupt")
    return found


def _read_shards(directory: Path) -> dict[Path, dict[str, TensorInfo]]:
    index, names = directory / _INDEX, read_index(directory)
    shards = sorted(set(names.values()))
    missing = [shard for shard in shards if not _is_file(directory / shard)]
    if missing:
        raise InfraError(
            f"{index} names {len(shards)} shards; {len(missing)} are not there: {', '.join(missing)}. "
            f"Get the missing shards into {directory}.",
            reason="missing-tensor",
        )
    found = {shard: read_header(directory / shard) for shard in shards}
    absent = [name for name, shard in names.items() if name not in found[shard]]
    if absent:
        raise InfraError(
            f"{index} places {absent[0]} in {names[absent[0]]}, which does not hold it ({len(absent)} such tensors). "
            "The index and the shards belong to different checkpoints; get both again.",
            reason="missing-tensor",
        )
    return {directory / shard: held for shard, held in found.items()}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _is_file_name(shard: object) -> bool:
    return isinstance(shard, str) and shard.endswith(".safetensors") and Path(shard).name == shard


def _no_weights(directory: Path) -> InfraError:
    pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
    if pickles:
        return pickle_refused(str(directory), pickles)
    others = sorted(path.name for path in directory.glob("*.safetensors"))
    held = f"It holds {', '.join(others[:5])}, which is no whole model by itself. " if others else ""
    return InfraError(
        f"{directory} holds neither {_WEIGHTS} nor {_INDEX}. {held}Point to the directory that save_pretrained wrote.",
        reason="not-found",
    )


def pickle_refused(where: str, names: list[str]) -> InfraError:
    """The error for weights in a format that runs code when it is read."""
    return InfraError(
        f"{where} holds its weights as pickle ({', '.join(names[:3])}), a format that can run any code when it is "
        "read, so it is refused. Use a revision with safetensors, or convert it on a machine you can lose: "
        "AutoModelForCausalLM.from_pretrained(…).save_pretrained(DIRECTORY).",
        reason="pickle",
    )
