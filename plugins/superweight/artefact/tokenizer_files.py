"""A tokenizer as its files describe it: content, not bytes, so that two can be compared whoever saved them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from superweight.checkpoint.shards import read_json

_ANY = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tokenizer_config.json")
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True)
class TokenizerFiles:
    """The files of a directory.

    Attributes:
        directory: where tokenizer.json, tokenizer_config.json and the chat template lie.
    """

    directory: Path

    @cached_property
    def whole(self) -> Mapping[str, Any]:
        """tokenizer.json; empty if there is none."""
        return self._json("tokenizer.json")

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """tokenizer_config.json, with special_tokens_map.json where that says more; empty if there is neither."""
        return {**self._json("special_tokens_map.json"), **self._json("tokenizer_config.json")}

    @property
    def there(self) -> bool:
        """Whether there is any tokenizer."""
        return any((self.directory / name).is_file() for name in _ANY)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Token → id, added tokens included; empty if tokenizer.json does not say."""
        model = self.whole.get("model")
        words = model.get("vocab") if isinstance(model, Mapping) else None
        if isinstance(words, list):  # unigram models list pairs of token and score
            words = {str(pair[0]): at for at, pair in enumerate(words) if isinstance(pair, list) and pair}
        found = {str(word): at for word, at in words.items()} if isinstance(words, Mapping) else {}
        return {**found, **{str(token["content"]): token["id"] for token in self.added}}

    @property
    def added(self) -> list[Mapping[str, Any]]:
        """Added tokens, by id."""
        listed = self.whole.get("added_tokens")
        tokens = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
        return sorted((one for one in tokens if "content" in one and "id" in one), key=lambda one: int(one["id"]))

    @property
    def merges(self) -> list[tuple[str, ...]]:
        """Pairs that are merged, in order; files hold them as texts or as pairs."""
        model = self.whole.get("model")
        listed = model.get("merges") if isinstance(model, Mapping) else None
        return [tuple(one.split(" ")) if isinstance(one, str) else tuple(one) for one in listed or ()]

    @property
    def size(self) -> int | None:
        """The largest id and one; None if it is not known."""
        ids = [at for at in self.vocabulary.values() if type(at) is int]
        return max(ids) + 1 if ids else None

    def part(self, name: str) -> str:
        """A part of tokenizer.json (`normalizer`, `pre_tokenizer`, …) as canonical text; empty for nothing."""
        found = self.whole.get(name)
        return json.dumps(found, sort_keys=True) if found else ""

    def special(self, name: str) -> str | None:
        """A special token's text; None if there is none."""
        said = self.settings.get(name)
        return said.get("content") if isinstance(said, Mapping) else said

    @cached_property
    def chat_template(self) -> dict[str, str]:
        """Templates by name, without white space at their ends; empty if there is none."""
        path = self.directory / "chat_template.jinja"
        said = path.read_text(encoding="utf-8") if path.is_file() else self.settings.get("chat_template")
        if isinstance(said, list):
            return {str(one.get("name")): str(one.get("template")).strip() for one in said if isinstance(one, Mapping)}
        return {"default": said.strip()} if isinstance(said, str) and said.strip() else {}

    def _json(self, name: str) -> dict[str, Any]:
        path = self.directory / name
        return read_json(path) if path.is_file() else {}
