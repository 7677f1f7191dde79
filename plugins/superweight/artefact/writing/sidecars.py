"""What belongs to a model beside its weights: tokenizer, generation settings, chat template, licence."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path

_CARRIED = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "chat_template*",
    "additional_chat_templates/*",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
)
_NEVER = (".py", ".safetensors", ".bin", ".pt", ".gguf", ".md")


def sidecars(directory: Path) -> list[Path]:
    """Files of a checkpoint that are carried along, relative to its directory; code and weights never are."""
    files = [path.relative_to(directory) for path in directory.rglob("*") if path.is_file()]
    return sorted(path for path in files if path.suffix not in _NEVER and any(_fits(path, one) for one in _CARRIED))


def _fits(path: Path, pattern: str) -> bool:
    return len(path.parts) == len(Path(pattern).parts) and fnmatch(str(path), pattern)


def carry(source: Path, target: Path) -> list[str]:
    """Copy them; their names."""
    names = sidecars(source)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    return [str(name) for name in names]
