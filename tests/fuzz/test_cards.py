"""Cards that were damaged: the library says which one and why, or it holds to the letter what the files say."""

import datetime
import math
import tempfile
import tomllib
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.damage import budget, byte_damage, line_damage, tree_damage
from fuzz.outcome import inflict, outcome, restore
from superweight.cards import builtin_cards, load, load_library

MODEL = """
id = "tiny"
title = "Tiny"
note = '''
Two
lines.'''
[source]
kind = "directory"
path = "weights"
[[super_weights]]
layer = 1
row = 5
column = 7
value = 1.5
status = "causal"
source = "planted"
[recipes.mine]
role = "reference"
why = "too small a model for it"
"""
RECIPE = """
id = "mine"
title = "Mine"
role = "candidate"
[method]
kind = "clip-restore"
bits = 4
granularity = "group"
group_size = 64
z = 9.5
"""
CORPUS = """
id = "chain"
title = "Chain"
[source]
kind = "hub"
repository = "some/where"
split = "test"
rows = 20
join = "\\n\\n"
"""
TEXT = """
id = "text"
title = "Text"
[source]
kind = "file"
path = "text.txt"
"""
TASK = """
id = "successor"
task = "successor.yaml"
[embedded]
format = "requests"
split = "validation"
columns = {text = '{request[context]}'}
[embedded.source]
kind = "wheel"
project = "some"
version = "1.0"
sha256 = "0123456789012345678901234567890123456789012345678901234567890123"
file = "some/rows.jsonl"
"""
TIER = """
id = "smoke"
title = "tiny"
models = ["tiny"]
recipes = ["baseline", "mine"]
required = ["tiny/mine"]
sequential = true
[[perplexity]]
corpus = "chain"
window = 64
windows = 8
[[tasks]]
task = "successor"
limit = 60
"""
GATE = """
id = "zero-shot"
title = "Zero-shot"
kind = "zero-shot"
margin = 0.02
confidence = 0.9
why = "Sixty items of a language without meaning can tell no less."
date = "2026-01-31"
"""
NARROW = """
id = "narrow"
title = "Narrow"
kind = "perplexity"
margin = 0.5
value = 3.5
n = 8
device_class = "cpu"
versions = {torch = "2."}
models = ["tiny"]
of = ["chain"]
why = "Measured on the machine that everybody has."
date = 2026-01-31
expires = 2027-01-31
"""
WAIVER = """
id = "one"
model = "tiny"
recipe = "mine"
gate = "zero-shot:successor"
ticket = "T-1"
why = "It is being looked into by somebody."
date = "2026-01-31"
expires = "2026-12-31"
"""
FILES = {
    "models/tiny.toml": MODEL,
    "recipes/mine.toml": RECIPE,
    "corpora/chain.toml": CORPUS,
    "corpora/text.toml": TEXT,
    "tasks/successor.toml": TASK,
    "tiers/smoke.toml": TIER,
    "gates/zero-shot.toml": GATE,
    "gates/narrow.toml": NARROW,
    "waivers/one.toml": WAIVER,
}
SHELVES = ("models", "recipes", "corpora", "tasks", "tiers", "gates", "waivers")
ONE = st.one_of(byte_damage(list(FILES)), line_damage(list(FILES)), line_damage(list(FILES)), tree_damage(list(FILES)))


@pytest.fixture(scope="module", autouse=True)
def _built_in_cards_are_read_once():
    """They are no damaged input, and most of the time that a library takes."""
    read, known = load._read_shelf, {}

    def remembered(folder, kind):
        if folder.parent != builtin_cards():
            return read(folder, kind)
        return known.setdefault(folder, None) or known.update({folder: read(folder, kind)}) or known[folder]

    load._read_shelf = remembered
    yield
    load._read_shelf = read


@pytest.mark.parametrize("examples", [150, pytest.param(8_000, marks=pytest.mark.slow)])
def test_damaged_cards_are_told_of_or_read_to_the_letter(examples):
    @budget(examples)
    @given(st.lists(ONE, min_size=1, max_size=2))
    def fuzz(damages):
        with tempfile.TemporaryDirectory() as place:
            directory = Path(place)
            restore(directory, {name: text.encode() for name, text in FILES.items()})
            inflict(damages, directory)
            names = {Path(name).stem for damage in damages for name in named(damage)} | ids(directory)
            found = outcome(lambda: load_library([directory]), names - {""})
            if found is not None:
                check(found, directory)

    fuzz()


def named(damage):
    """Files that a damage is about, before and after."""
    return [name for name in damage.arguments[: 3 if damage.name.startswith("tree") else 1] if name]


def ids(directory):
    """Ids that the files have now."""
    found = set()
    for path in directory.rglob("*.toml"):
        if path.is_file():
            with suppress(ValueError):
                identifier = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("id")
                found |= {identifier} if isinstance(identifier, str) else set()
    return found


def check(found, directory):
    """Whatever lies in the directory and could be a card is in the library, key by key, and nothing else is."""
    paths = [path for path in directory.rglob("*") if path.name.lower().endswith(".toml")]
    seen = {shelf: set(load_library_ids(shelf)) for shelf in SHELVES}
    for path in paths:
        assert path.parent.parent == directory, f"{path} was passed over"
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        card = getattr(found, path.parent.name)[raw["id"]]
        agrees(raw, card.model_dump(), path)
        seen[path.parent.name].add(raw["id"])
    assert {shelf: set(getattr(found, shelf)) for shelf in SHELVES} == seen


def load_library_ids(shelf):
    return (tomllib.loads(path.read_text())["id"] for path in (builtin_cards() / shelf).glob("*.toml"))


def agrees(raw, read, where):
    """Whether a card says what its file does: same types, finite numbers, text that can be seen."""
    if isinstance(raw, dict):
        for key, value in raw.items():
            agrees(key, key, where)
            if key == "path" or (key == "task" and str(value).endswith((".yaml", ".yml"))):
                assert Path(read[key]).is_absolute()
                assert Path(read[key]) == (Path(where).parent / value).resolve()
            else:
                agrees(value, read[key], where)
    elif isinstance(raw, list):
        assert len(raw) == len(read)
        for one, other in zip(raw, read, strict=True):
            agrees(one, other, where)
    elif isinstance(raw, datetime.date):
        assert raw.isoformat() == read
    elif isinstance(raw, bool | str):
        assert type(read) is type(raw)
        assert read == raw
        controls = [one for one in str(raw) if one not in "\n\t" and unicodedata.category(one) in ("Cc", "Cs")]
        assert not controls
        assert not any("\u202a" <= one <= "\u202e" or "\u2066" <= one <= "\u2069" for one in str(raw))
    else:
        assert read == raw
        assert not isinstance(read, bool)
        assert math.isfinite(raw) or (raw == math.inf and "z = inf" in Path(where).read_text())
        assert abs(raw) < 2**31 or isinstance(raw, float)
