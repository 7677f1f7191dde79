"""Whatever is wrong with a file's header, its scalars are told, cannot be told, or are refused; and no rule breaks."""

import contextlib
import json
import math
import random

import pytest

from superweight.artefact.formats import Decoded, format_of
from superweight.artefact.lint import lint
from superweight.artefact.lint.rule import Subject
from superweight.artefact.reading import open_reader
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell
from support.edited import read_safetensors, write_safetensors
from support.made_artefacts import ARTEFACTS, MODULE, made, scalar

FILES = [f"{tool}/{name}" for tool in ("bitsandbytes", "torchao", "quanto") for name in made(tool)]
DTYPES = {1: ("U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "BOOL"), 2: ("F16", "BF16", "I16", "U16"),
          4: ("F32", "I32", "U32"), 8: ("F64", "I64")}  # fmt: skip
JUNK = (None, [], {}, "", "x", -1, 0, 3, 1e300, [1], [[]], {"_data": 3}, True)


def other_shape(chance, count):
    first = chance.choice([divisor for divisor in range(1, min(count, 300) + 1) if count % divisor == 0] or [1])
    return chance.choice([(count,), (first, count // first), (count // first, first), (1, count), (count, 1)])


def damage_tensors(chance, tensors):
    name = chance.choice(list(tensors))
    dtype, shape, content = tensors[name]
    size = len(content) // max(math.prod(shape), 1) or 1
    kind = chance.randrange(5)
    if kind == 0:
        del tensors[name]
    elif kind == 1 and shape:
        tensors[name] = dtype, other_shape(chance, math.prod(shape)), content
    elif kind == 2:
        tensors[name] = chance.choice(DTYPES[size]), shape, content
    elif kind == 3:
        kept = chance.randrange(len(content) // size + 1)
        tensors[name] = dtype, (kept,), content[: kept * size]
    else:
        tensors[name] = dtype, shape, bytes(chance.randrange(256) for _ in range(min(len(content), 64))) + content[64:]


def damaged_json(chance, content):
    """The same JSON with one value somewhere replaced or taken away."""
    holders, found = [content], []
    while holders:
        holder = holders.pop()
        keys = holder if isinstance(holder, dict) else range(len(holder))
        found += [(holder, key) for key in keys]
        holders += [holder[key] for key in keys if isinstance(holder[key], dict | list)]
    holder, key = chance.choice(found)
    holder[key] = chance.choice(JUNK)


def damage(chance, path, source):
    tensors, metadata = read_safetensors(source / "model.safetensors")
    for _ in range(chance.randrange(3)):
        damage_tensors(chance, tensors)
    said = [name for name in metadata if "." in name]
    if said and chance.random() < 0.5:
        known = json.loads(metadata[said[0]])
        damaged_json(chance, known)
        metadata[said[0]] = json.dumps(known)
    state = [name for name in tensors if "quant_state" in name and tensors[name][0] == "U8"]
    if state and chance.random() < 0.5:
        known = (
            json.loads(tensors[state[0]][2].decode(errors="replace")) if tensors[state[0]][2][:1] == b"{" else {"a": 1}
        )
        damaged_json(chance, known)
        text = json.dumps(known).encode()
        tensors[state[0]] = "U8", (len(text),), text
    write_safetensors(path / "model.safetensors", tensors, metadata)
    for name in ("config.json", "quanto_qmap.json"):
        if (source / name).is_file():
            known = json.loads((source / name).read_text())
            if chance.random() < 0.3:
                damaged_json(chance, known)
            (path / name).write_text(json.dumps(known))


@pytest.mark.parametrize("name", FILES)
def test_nothing_but_an_answer_or_a_refusal(tmp_path, name):
    chance = random.Random(name)
    for number in range(25):
        path = tmp_path / str(number)
        path.mkdir()
        try:
            damage(chance, path, ARTEFACTS / name)
        except (ValueError, UnicodeDecodeError):
            continue  # the damage itself met what an earlier one left
        try:
            reader = open_reader(path)
            if format_of(reader.artefact, MODULE) is not None:
                for row, column in ((5, 7), (30, 150), (0, 0), (31, 191)):
                    assert isinstance(scalar(path, row, column), Decoded | CannotTell)
            assert isinstance(reader.about, str)
        except InfraError:
            pass
        for thorough in (False, True):
            with contextlib.suppress(InfraError):
                lint(Subject(open_reader(path), thorough=thorough))
