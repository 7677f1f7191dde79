"""Adapters that bring super weights back, probed through PEFT on the artefact that they are for."""

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import superweight.artefact.writing.adapter as writing
from packing import write_packed
from superweight.artefact.adapter import AdaptedReader, Adapter
from superweight.artefact.check import check
from superweight.artefact.reading import open_reader
from superweight.artefact.writing.adapter import read_record, write_adapter
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from superweight.checkpoint.files import open_directory
from superweight.cli import main
from superweight.errors import InfraError
from support.tiny import HIDDEN, INNER, tiny_model

PLANTED = {
    Coordinate(layer=0, row=5, column=7): 5.875732421875,
    Coordinate(layer=0, row=9, column=7): -3.3000001907348633,  # a spoke of the same column
    Coordinate(layer=0, row=5, column=90): 4.0,
    Coordinate(layer=2, row=63, column=95): -6.06591796875,
}
LISTED = dict.fromkeys(PLANTED, "listed")


def dense(directory, values, *, kind="llama", layers=3, dtype="float32"):
    """A tiny model with these numbers in its down projections."""
    model = tiny_model(kind, layers=layers).to(getattr(torch, dtype))
    model.save_pretrained(directory)
    with_values(directory, values)
    return directory


def with_values(directory, values, name="model.layers.{}.mlp.down_proj.weight"):
    file = directory / "model.safetensors"
    tensors = load_file(file)
    for where, value in values.items():
        tensors[name.format(where.layer)][where.row, where.column] = value
    save_file(tensors, file, metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return dense(tmp_path_factory.mktemp("source") / "dense", PLANTED)


def bases(source, directory, dtype):
    """Clipped in 8 bits: the planted weights lose most of what they are."""
    return write_packed(source, directory / f"w8-{dtype}", dtype=dtype, clip=0.9)


def restoring(artefact, source, target, weights=LISTED, **how):
    return write_adapter(open_reader(artefact), open_reader(source), weights, target, **how)


def loaded(artefact, adapter, dtype, *, autocast=True, dequantize=True):
    """The artefact as transformers loads it, with the adapter on it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    quantised = "quantization_config" in json.loads((artefact / "config.json").read_text())
    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if quantised and dequantize else {}
    model = AutoModelForCausalLM.from_pretrained(artefact, dtype=getattr(torch, dtype), **how)
    if quantised and not dequantize:
        with torch.no_grad():
            model(torch.tensor([[1, 5]]))  # only then is there a weight
    return PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=autocast)


def probed(model, places):
    """Each scalar by a unit vector through its module."""
    found = {}
    for where in places:
        module = model.get_base_model().model.layers[where.layer].mlp.down_proj
        probe = torch.zeros(INNER, dtype=module.weight.dtype)
        probe[where.column] = 1
        with torch.no_grad():
            found[where] = float(module(probe)[where.row])
    return found


def merged(model, places):
    inner = model.merge_and_unload().model
    return {one: float(inner.layers[one.layer].mlp.down_proj.weight[one.row, one.column]) for one in places}


def in_dtype(values, dtype):
    return {where: float(torch.tensor(value).to(getattr(torch, dtype))) for where, value in values.items()}


@pytest.mark.parametrize("kept", ["bfloat16", "float16", "float32"])
def test_super_weights_come_back_exactly(source, tmp_path, kept):
    base = bases(source, tmp_path, kept)
    found = restoring(base, source, tmp_path / "adapter")
    for sums in found.exactness:
        assert sums.whole or not sums.required
        # What it says of a way is so, by PEFT on the model that transformers loads.
        autocast, wanted = sums.adapter == "float32", in_dtype(PLANTED, sums.base)
        model = loaded(base, tmp_path / "adapter", sums.base, autocast=autocast)
        values = probed(model, PLANTED)
        assert sum(values[where] == wanted[where] for where in PLANTED) == sums.exact
        assert merged(model, PLANTED) == values
    assert {(one.base, one.adapter) for one in found.exactness if one.required} == {
        ("float32", "float32"),
        (kept, "float32"),
    }
    assert all(one.whole for one in found.exactness if one.required)


def test_the_default_load_decodes_in_its_own_dtype(source, tmp_path):
    """Without dequantize=True scales are cast first: the same in their own dtype, another base in others."""
    base = bases(source, tmp_path, "bfloat16")
    restoring(base, source, tmp_path / "adapter")
    model = loaded(base, tmp_path / "adapter", "bfloat16", dequantize=False)
    assert probed(model, PLANTED) == in_dtype(PLANTED, "bfloat16")
    model = loaded(base, tmp_path / "adapter", "float32", dequantize=False)
    assert probed(model, PLANTED) != PLANTED


def test_a_default_load_has_no_weights_for_peft_before_a_forward_pass(source, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = bases(source, tmp_path, "bfloat16")
    restoring(base, source, tmp_path / "adapter")
    model = AutoModelForCausalLM.from_pretrained(base)
    with pytest.raises(AttributeError, match="weight"):
        PeftModel.from_pretrained(model, tmp_path / "adapter")


def test_only_modules_with_super_weights_get_terms(source, tmp_path):
    base = bases(source, tmp_path, "bfloat16")
    found = restoring(base, source, tmp_path / "adapter")
    model = loaded(base, tmp_path / "adapter", "float32")
    layers = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    assert [name.removeprefix("base_model.model.") for name in layers] == found.modules
    assert found.modules == ["model.layers.0.mlp.down_proj", "model.layers.2.mlp.down_proj"]
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.model.layers.0.mlp.down_proj.lora_{side}.weight"] for side in "AB")
    assert a.shape == (found.rank, INNER)
    assert b.shape == (HIDDEN, found.rank)
    terms = [int(row.nonzero()) for row in a if row.any()]
    assert sorted(set(terms)) == [7, 90]
    shared = b[:, [k for k, column in enumerate(terms) if column == 7]]
    assert shared.any(1).nonzero().flatten().tolist() == [5, 9]  # two spokes in the terms of one column
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["lora_alpha"] == settings["r"] == found.rank  # nothing is scaled, whoever reads it


def test_nothing_but_super_weights_changes(source, tmp_path):
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    base = bases(source, tmp_path, "bfloat16")
    restoring(base, source, tmp_path / "adapter")
    how = {"quantization_config": CompressedTensorsConfig(dequantize=True), "dtype": torch.float32}
    plain = AutoModelForCausalLM.from_pretrained(base, **how)
    with_it = loaded(base, tmp_path / "adapter", "float32").merge_and_unload()
    changed = {
        (name, *place)
        for (name, one), other in zip(plain.named_parameters(), with_it.parameters(), strict=True)
        for place in (one != other).nonzero().tolist()
    }
    assert changed == {
        (f"model.layers.{one.layer}.mlp.down_proj.weight", one.row, one.column) for one, value in PLANTED.items()
    }


def test_saved_and_loaded_again_it_is_the_same(source, tmp_path):
    base = bases(source, tmp_path, "bfloat16")
    restoring(base, source, tmp_path / "adapter")
    first = loaded(base, tmp_path / "adapter", "bfloat16")
    first.save_pretrained(tmp_path / "again")
    again = loaded(base, tmp_path / "again", "bfloat16")
    tokens = torch.tensor([[1, 5, 9, 20]])
    with torch.no_grad():
        assert torch.equal(first(tokens).logits, again(tokens).logits)
    assert probed(again, PLANTED) == in_dtype(PLANTED, "bfloat16")


def test_the_check_sees_them_with_the_adapter(source, tmp_path):
    base = bases(source, tmp_path, "bfloat16")
    restoring(base, source, tmp_path / "adapter")
    plain, reference = open_reader(base), open_reader(source)
    without = check(plain, reference, LISTED, Promise.of("within-step"))
    assert without.broken
    reader = AdaptedReader(plain, Adapter(tmp_path / "adapter"))
    found = check(reader, reference, LISTED, Promise.of("exact"))
    assert not found.broken
    assert [one.outcome for one in found.super_weights] == ["exact"] * 4
    assert found.bytes == without.bytes + sum(file.stat().st_size for file in (tmp_path / "adapter").iterdir())


def test_the_record_says_what_it_is_for(source, tmp_path):
    base = bases(source, tmp_path, "bfloat16")
    restoring(base, source, tmp_path / "adapter", named_by="a test")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base)
    found = read_record(tmp_path / "adapter")
    assert found.base.sha256 == open_directory(base, progress=False).content_hash
    assert found.base.path_name == "w8-bfloat16"
    assert str(tmp_path) not in (tmp_path / "adapter" / "superweight.json").read_text()
    assert found.named_by == "a test"
    assert {one.coordinate: one.original for one in found.super_weights} == PLANTED
    for one in found.super_weights:
        assert one.base == open_reader(base).scalar(one.coordinate).decoded.value
        assert sum(one.parts) == one.correction


def test_an_input_major_base(tmp_path):
    places = {Coordinate(layer=1, row=5, column=7): 3.0}
    source, base = tmp_path / "source", tmp_path / "base"
    tiny_model("gpt2", layers=2).save_pretrained(source)
    file = source / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("h.1.mlp.c_proj.weight"))
    tensors[name][7, 5] = 3.0  # (in, out)
    save_file(tensors, file, metadata={"format": "pt"})
    shutil.copytree(source, base)
    tensors[name][7, 5] = 0.7
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    found = restoring(base, source, tmp_path / "adapter", dict.fromkeys(places, ""))
    assert found.modules == ["transformer.h.1.mlp.c_proj"]
    model = loaded(base, tmp_path / "adapter", "float32").merge_and_unload()
    assert float(model.transformer.h[1].mlp.c_proj.weight[7, 5]) == 3.0


ONE = Coordinate(layer=1, row=5, column=7)
ODD, BETWEEN = 4.5 + 2**-21, 0.25 + 2**-22
"""No float32 number added to the second gives the first: test_adding.py."""


def pair(directory, original, base, dtype="float32"):
    """A dense reference and a dense base that differ in one number."""
    source = dense(directory / "source", {ONE: original}, layers=2, dtype=dtype)
    shutil.copytree(source, directory / "base")
    return source, with_values(directory / "base", {ONE: base})


def test_what_no_sum_reaches_is_refused_unless_the_nearest_will_do(tmp_path):
    source, base = pair(tmp_path, ODD, BETWEEN)
    with pytest.raises(InfraError, match="no adapter brings") as error:
        restoring(base, source, tmp_path / "adapter", {ONE: ""})
    assert error.value.reason == "unsupported"
    assert not (tmp_path / "adapter").exists()
    found = restoring(base, source, tmp_path / "adapter", {ONE: ""}, nearest=True)
    first = found.exactness[0]
    assert (first.base, first.exact, first.of) == ("float32", 0, 1)
    assert first.worst == 2**-21 / ODD
    value = probed(loaded(base, tmp_path / "adapter", "float32"), [ONE])[ONE]
    assert abs(value - ODD) == 2**-21


def test_it_can_be_made_for_one_dtype(tmp_path):
    source, base = pair(tmp_path, ODD, BETWEEN)
    found = restoring(base, source, tmp_path / "adapter", {ONE: ""}, dtypes=["bfloat16"])
    assert [one.base for one in found.exactness if one.required] == ["bfloat16"]
    assert probed(loaded(base, tmp_path / "adapter", "bfloat16"), [ONE])[ONE] == 4.5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize(("original", "base"), [(3.5, -0.0), (3.5, 0.0), (-3.5, 0.25), (2.5, 2.75), (0.125, 0.5)])
def test_bases_of_every_dtype_and_sign(tmp_path, dtype, original, base):
    original, base = (float(torch.tensor(value).to(getattr(torch, dtype))) for value in (original, base))
    source, other = pair(tmp_path, original, base, dtype)
    restoring(other, source, tmp_path / "adapter", {ONE: ""})
    for loaded_in in dict.fromkeys((dtype, "float32")):
        model = loaded(other, tmp_path / "adapter", loaded_in)
        assert probed(model, [ONE])[ONE] == original
        assert merged(model, [ONE])[ONE] == original


def test_a_negative_zero_comes_back_as_a_zero(tmp_path):
    source, base = pair(tmp_path, -0.0, 0.25)
    restoring(base, source, tmp_path / "adapter", {ONE: ""})
    assert probed(loaded(base, tmp_path / "adapter", "float32"), [ONE])[ONE] == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_cannot_be_added_to(tmp_path, bad):
    source, base = pair(tmp_path, 3.5, bad)
    for one, other in ((base, source), (source, base)):
        with pytest.raises(InfraError) as error:
            restoring(one, other, tmp_path / "adapter", {ONE: ""}, nearest=True)
        assert error.value.reason == "non-finite"


def test_super_weights_in_experts_are_refused(source, tmp_path):
    where = Coordinate(layer=0, expert=1, row=5, column=7)
    with pytest.raises(InfraError, match="expert") as error:
        restoring(bases(source, tmp_path, "bfloat16"), source, tmp_path / "adapter", {where: ""})
    assert error.value.reason == "cannot-tell"
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("where", [Coordinate(layer=9, row=0, column=0), Coordinate(layer=0, row=HIDDEN, column=0)])
def test_super_weights_that_are_not_there_are_refused(source, tmp_path, where):
    with pytest.raises(InfraError) as error:
        restoring(bases(source, tmp_path, "bfloat16"), source, tmp_path / "adapter", {where: ""})
    assert error.value.reason == "cannot-tell"


def test_nothing_to_bring_back(source, tmp_path):
    shutil.copytree(source, tmp_path / "same")
    with pytest.raises(InfraError, match="no adapter is needed") as error:
        restoring(tmp_path / "same", source, tmp_path / "adapter")
    assert error.value.reason == "not-applicable"


def test_a_reference_that_is_compressed_itself(source, tmp_path):
    one, other = (bases(source, tmp_path, dtype) for dtype in ("bfloat16", "float32"))
    with pytest.raises(InfraError, match="compressed itself"):
        restoring(one, other, tmp_path / "adapter")


def test_another_model_than_the_references(source, tmp_path):
    base = dense(tmp_path / "other", {}, layers=2)
    with pytest.raises(InfraError, match="another model"):
        restoring(base, source, tmp_path / "adapter")


def test_a_model_that_transformers_does_not_know(source, tmp_path):
    base, source = bases(source, tmp_path, "bfloat16"), shutil.copytree(source, tmp_path / "source")
    for config in (base / "config.json", source / "config.json"):
        config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "nobody-knows"}))
    with pytest.raises(InfraError, match="no causal language model") as error:
        restoring(base, source, tmp_path / "adapter")
    assert error.value.reason == "unsupported"


def test_what_is_there_already_is_left_alone(source, tmp_path):
    base = bases(source, tmp_path, "bfloat16")
    (tmp_path / "adapter").mkdir()
    restoring(base, source, tmp_path / "adapter")  # an empty directory is as good as none
    before = {file.name: file.read_bytes() for file in (tmp_path / "adapter").iterdir()}
    with pytest.raises(InfraError, match="there already"):
        restoring(base, source, tmp_path / "adapter")
    assert {file.name: file.read_bytes() for file in (tmp_path / "adapter").iterdir()} == before


def test_nothing_is_left_of_one_that_peft_adds_otherwise(source, tmp_path, monkeypatch):
    """The proof runs before the directory has its name."""
    base = bases(source, tmp_path, "bfloat16")
    write = writing._write

    def off_by_a_bit(directory, found, modules):
        write(directory, found, modules)
        file = directory / "adapter_model.safetensors"
        tensors = load_file(file)
        name = "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"
        tensors[name][20, 0] = 2**-20  # a row without a super weight is not looked at; one with, is
        tensors[name][9, 2] += 2**-20
        save_file(tensors, file)

    monkeypatch.setattr(writing, "_write", off_by_a_bit)
    with pytest.raises(InfraError) as error:
        restoring(base, source, tmp_path / "adapter")
    assert error.value.reason == "crash"
    assert [path.name for path in tmp_path.iterdir()] == ["w8-bfloat16"]


def test_the_command(source, tmp_path, capsys):
    base = bases(source, tmp_path, "bfloat16")
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps({"super_weights": [where.model_dump() for where in PLANTED]}))
    asked = ["--reference", str(source), "--super-weights", str(listed)]
    assert main(["check", str(base), *asked]) == 1
    assert main(["adapter", str(base), *asked, "-o", str(tmp_path / "adapter")]) == 0
    told = capsys.readouterr().out
    assert "4 of 4" in told
    assert "+" in told
    assert main(["check", str(base), *asked, "--adapter", str(tmp_path / "adapter"), "--promise", "exact"]) == 0
    assert "✓ all 4 super weights as promised (exact)" in capsys.readouterr().out
    assert main(["check", str(base), str(base), *asked, "--adapter", str(tmp_path / "adapter")]) == 2
    assert main(["adapter", str(base), *asked, "-o", str(tmp_path / "adapter")]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 2
    assert "there already" in told[-1]


def test_the_proof_refuses_a_sum_that_peft_does_not_compute(source, tmp_path):
    from superweight.artefact.adding import Way
    from superweight.artefact.writing.proof import prove

    base = bases(source, tmp_path, "bfloat16")
    found = restoring(base, source, tmp_path / "adapter")
    way = Way("float32", "float32")
    prove(tmp_path / "adapter", found.super_weights, found.rank, way)
    other = [one.model_copy(update={"parts": [*one.parts[:-1], 2 * one.parts[-1]]}) for one in found.super_weights]
    with pytest.raises(InfraError, match="PEFT gives"):
        prove(tmp_path / "adapter", other, found.rank, way)


def test_an_engine_that_keeps_adapters_in_bfloat16_loses_nothing_of_the_correction(source, tmp_path):
    """Terms are bfloat16 numbers whose sum is the correction: what is accumulated in float32 is whole."""
    base = bases(source, tmp_path, "bfloat16")
    found = restoring(base, source, tmp_path / "adapter")
    assert any(len(one.parts) > 1 for one in found.super_weights)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for one in found.super_weights:
        a, b = (tensors[f"base_model.model.{one.module}.lora_{side}.weight"] for side in "AB")
        assert torch.equal(b.bfloat16().float(), b)
        assert float(b[one.row].bfloat16().float() @ a[:, one.column].bfloat16().float()) == one.correction


class OneFile:
    """Reads a file whose tensors are called otherwise, as GGUF's are."""

    about, bytes, read = "one file", 1, 0

    def __init__(self, path, inner):
        self.path, self.inner = path, inner

    def scalar(self, where):
        return self.inner.scalar(where)._replace(tensor=f"blk.{where.layer}.ffn_down.weight")


def test_a_base_in_one_file_with_names_of_its_own(source, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"weights")
    base = OneFile(tmp_path / "model.gguf", open_reader(bases(source, tmp_path, "bfloat16")))
    found = write_adapter(base, open_reader(source), LISTED, tmp_path / "adapter")
    assert found.modules == ["model.layers.0.mlp.down_proj", "model.layers.2.mlp.down_proj"]
    assert found.base.sha256 == hashlib.sha256(b"weights").hexdigest()
    reader = AdaptedReader(base, Adapter(tmp_path / "adapter"))
    assert {where: reader.scalar(where).decoded.value for where in PLANTED} == PLANTED
