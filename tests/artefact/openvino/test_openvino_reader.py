"""Super weights looked up in OpenVINO's IR: every weight is what OpenVINO's own runtime multiplies with."""

import base64
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from superweight.artefact.check import look
from superweight.artefact.openvino import IrReader
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell

DATA = Path(__file__).parents[2] / "data" / "artefacts" / "openvino"
MADE = json.loads((DATA / "values.json").read_text())
LAYER, ROWS, COLUMNS = MADE["layer"], MADE["rows"], MADE["columns"]
DECODED = sorted(set(MADE["values"]) - {"int3_sym"})
LARGE = Coordinate(layer=LAYER, row=3, column=40)


def values(name):
    return np.frombuffer(base64.b64decode(MADE["values"][name]), np.float32).reshape(ROWS, COLUMNS)


def places():
    return [Coordinate(layer=LAYER, row=row, column=column) for row in range(ROWS) for column in range(COLUMNS)]


@pytest.fixture
def copied(tmp_path):
    """Copy an IR so that it can be changed: `copied("int4_sym", ("i4", "u4"))` replaces text in its XML."""

    def copy(name, *changes):
        text = (DATA / f"{name}.xml").read_text()
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        (tmp_path / "openvino_model.xml").write_text(text)
        shutil.copy(DATA / f"{name}.bin", tmp_path / "openvino_model.bin")
        return tmp_path / "openvino_model.xml"

    return copy


def told(found):
    assert isinstance(found, CannotTell), found
    return found.reason


def refused(reason, action):
    with pytest.raises(InfraError) as caught:
        action()
    assert caught.value.reason == reason
    return str(caught.value)


@pytest.mark.parametrize("name", DECODED)
def test_every_weight_is_what_the_runtime_multiplies_with(name):
    reader, expected = IrReader(DATA / f"{name}.xml"), values(name)
    for where in places():
        held = reader.scalar(where)
        assert held.decoded.value == expected[where.row, where.column]
        assert held.decoded.dtype == "float32"
        assert held.tensor == f"model.layers.{LAYER}.mlp.down_proj"
    assert reader.bytes == sum(path.stat().st_size for path in DATA.glob(f"{name}.[xb]*"))


@pytest.mark.parametrize(("name", "about"), [
    ("f16", "OpenVINO IR: f16 × 1"),
    ("int4_asym", "OpenVINO IR, NNCF int4_asym: u4, groups of 32 × 1"),
    ("int8_sym", "OpenVINO IR, NNCF int8_sym: i8 × 1"),
    ("smooth", "OpenVINO IR: i8 × 1"),
])  # fmt: skip
def test_what_holds_the_weights(name, about):
    assert IrReader(DATA / f"{name}.xml").about == about


@pytest.mark.parametrize("name", ["int8_asym", "int8_sym", "int4_sym", "int4_asym"])
def test_weights_of_a_group_differ_by_whole_steps(name):
    reader, expected = IrReader(DATA / f"{name}.xml"), values(name).astype(np.float64)
    group = 32 if name.startswith("int4") else COLUMNS
    for row in range(ROWS):
        for first in range(0, COLUMNS, group):
            held = [reader.scalar(Coordinate(layer=LAYER, row=row, column=at)) for at in range(first, first + group)]
            step = max(one.decoded.step for one in held)
            off = (expected[row, first : first + group] - expected[row, first]) / step
            assert np.abs(off - off.round()).max() < 1e-3


@pytest.mark.parametrize("name", ["nf4", "nvfp4", "cb4", "smooth"])
def test_a_step_is_the_nearer_of_two(name):
    reader = IrReader(DATA / f"{name}.xml")
    held = [reader.scalar(where).decoded for where in places()]
    assert any(math.isinf(one.lower) or math.isinf(one.upper) for one in held)
    assert all(one.step == min(gap for gap in (one.lower, one.upper) if math.isfinite(gap)) for one in held)
    assert len({one.value for one in held[:16]} | {one.value + one.upper for one in held[:16]}) > 4


def test_a_weight_that_makes_its_group_coarse_is_kept_by_all():
    for name in DECODED:
        held = IrReader(DATA / f"{name}.xml").scalar(LARGE).decoded
        assert abs(held.value - 9.0) <= held.step, name


def test_types_and_options_that_cannot_be_told(copied):
    assert "is u3, which is not decoded here" in told(IrReader(DATA / "int3_sym.xml").scalar(LARGE))
    awq = copied("int4_sym", ('<awq value="False" />', '<awq value="True" />'))
    assert "AWQ" in told(IrReader(awq).scalar(LARGE))
    lora = copied("int4_sym", ('<lora_correction value="False" />', '<lora_correction value="True" />'))
    assert "adapters" in told(IrReader(lora).scalar(LARGE))
    scaled = copied("smooth", ("nncf_smooth_quant", "something_else"))
    assert "scales its input" in told(IrReader(scaled).scalar(LARGE))
    other = copied("int4_sym", ('type="Multiply"', 'type="Minimum"'))
    assert "is a Minimum, which is not followed" in told(IrReader(other).scalar(LARGE))
    rounds = copied(
        "f16", ('element_type="f16"', 'element_type="bf16"'), ('destination_type="f32"', 'destination_type="i8"')
    )
    assert "makes i8 of it" in told(IrReader(rounds).scalar(LARGE))


def test_places_that_are_not_there():
    reader = IrReader(DATA / "int4_sym.xml")
    for layer in (0, 2):
        assert "no down projection of layer" in told(reader.scalar(Coordinate(layer=layer, row=0, column=0)))
    assert "expert 0" in told(reader.scalar(Coordinate(layer=LAYER, expert=0, row=0, column=0)))
    for row, column in ((ROWS, 0), (0, COLUMNS), (2**40, 0)):
        assert "lies outside" in told(reader.scalar(Coordinate(layer=LAYER, row=row, column=column)))


def test_names_of_other_exporters(copied):
    path = copied(
        "int8_sym",
        (
            f"__module.model.layers.{LAYER}.mlp.down_proj/aten::linear/MatMul",
            f"/model/layers.{LAYER}/mlp/down_proj/MatMul",
        ),
    )
    held = IrReader(path).scalar(LARGE)
    assert held.tensor == f"model.layers.{LAYER}.mlp.down_proj"
    path = copied("int8_sym", (f"__module.model.layers.{LAYER}.mlp.down_proj/aten::linear/MatMul", "MatMul_17"))
    assert IrReader(path).scalar(LARGE).decoded == held.decoded  # by the name of its constant


def test_a_matrix_that_is_stored_the_other_way_round(copied, tmp_path):
    path = copied("f16", ('transpose_b="true"', 'transpose_b="false"'), (f'shape="{ROWS}, {COLUMNS}"', f'shape="{COLUMNS}, {ROWS}"'),
                  (f"<dim>{ROWS}</dim>\n\t\t\t\t\t<dim>{COLUMNS}</dim>", f"<dim>{COLUMNS}</dim>\n\t\t\t\t\t<dim>{ROWS}</dim>"))  # fmt: skip
    turned = np.ascontiguousarray(values("f16").T.astype(np.float16))
    (tmp_path / "openvino_model.bin").write_bytes(turned.tobytes())
    for where in places()[::7]:
        assert IrReader(path).scalar(where).decoded.value == values("f16")[where.row, where.column]


def test_files_and_directories(copied, tmp_path):
    path = copied("int4_sym")
    assert open_reader(path).about == open_reader(tmp_path).about
    path.rename(tmp_path / "other.xml")
    refused("missing-tensor", lambda: open_reader(tmp_path / "other.xml"))
    path.with_suffix(".bin").rename(tmp_path / "other.bin")
    assert open_reader(tmp_path).about.startswith("OpenVINO IR")
    shutil.copy(tmp_path / "other.xml", tmp_path / "third.xml")
    shutil.copy(tmp_path / "other.bin", tmp_path / "third.bin")
    assert "other.xml, third.xml" in refused("unsupported", lambda: open_reader(tmp_path))


@pytest.mark.parametrize(
    "text",
    ["", "<net>", "<html></html>", "<net><layers/></net>", "\ufeff", "<net>\u0001</net>"],
)
def test_what_is_no_ir(text, tmp_path):
    (tmp_path / "a.xml").write_text(text)
    (tmp_path / "a.bin").touch()
    refused("corrupt", lambda: IrReader(tmp_path / "a.xml"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_not_resolved(encoding, tmp_path):
    bomb = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE net [<!ENTITY a "aaaa">]><net>&a;</net>'
    (tmp_path / "a.xml").write_bytes(bomb.encode(encoding))
    (tmp_path / "a.bin").touch()
    refused("unsupported", lambda: IrReader(tmp_path / "a.xml"))


@pytest.mark.parametrize("name", ["f16", "int8_asym", "int4_sym", "int4_asym", "nf4", "cb4", "nvfp4", "smooth"])
def test_damaged_files_are_read_as_they_are_or_refused(name, copied, tmp_path):
    path, chance = copied(name), np.random.default_rng(5)
    whole, weights = path.read_bytes(), (tmp_path / "openvino_model.bin").read_bytes()
    for _ in range(60):
        damaged = bytearray(whole)
        for at in chance.integers(0, len(damaged), 2):
            damaged[at] = int(chance.integers(32, 127))
        path.write_bytes(damaged)
        (tmp_path / "openvino_model.bin").write_bytes(weights[: int(chance.choice([len(weights), len(weights) // 2]))])
        try:
            reader = IrReader(path)
            found = reader.scalar(LARGE)
            look(reader)
        except InfraError:
            continue
        assert isinstance(found, CannotTell) or isinstance(found.decoded.value, float)


def test_a_graph_that_leads_back_to_itself_cannot_be_told(copied):
    text = (DATA / "f16.xml").read_text()
    edges = text[text.index("<edges>") : text.index("</edges>")]
    convert = next(line for line in text.splitlines() if 'type="Convert"' in line).split('id="')[1].split('"')[0]
    into = next(line for line in edges.splitlines() if f'to-layer="{convert}"' in line)
    path = copied(
        "f16", (into.strip(), f'<edge from-layer="{convert}" from-port="1" to-layer="{convert}" to-port="0" />')
    )
    assert "lead back to themselves" in told(IrReader(path).scalar(LARGE))


def findings(path):
    return {(one.rule, one.severity): f"{one.where} {one.found}" for one in look(IrReader(path)).findings}


@pytest.mark.parametrize("name", sorted(MADE["values"]))
def test_good_files_have_no_findings(name):
    assert findings(DATA / f"{name}.xml") == {}


def test_bad_files_have_one(copied, tmp_path):
    path, weights = copied("int4_sym"), tmp_path / "openvino_model.bin"
    whole = weights.read_bytes()
    weights.write_bytes(whole + b"x" * 9)
    assert "9 bytes more" in findings(path)["ir-left-over", "warning"]
    weights.write_bytes(whole[:-20])
    assert ("ir-cut-short", "error") in findings(path)
    reader = IrReader(copied("int4_sym"))
    scale = next(
        one for one in reader.constants()[f"model.layers.{LAYER}.mlp.down_proj"] if one.name.endswith("/scale")
    )
    at = reader.graph.constant(scale).start
    for number, what in ((0.0, "zero"), (np.nan, "NaN"), (np.inf, "infinite")):
        weights.write_bytes(whole[:at] + np.float16(number).tobytes() + whole[at + 2 :])
        assert what in findings(path)["ir-scale", "error"]
    other = copied("int4_sym", ('<mode value="int4_sym" />', '<mode value="int8_sym" />'))
    assert list(findings(other)) == [("ir-mode", "warning")]


def test_onnx_is_known_and_not_read(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    for path in (tmp_path, tmp_path / "model.onnx"):
        assert "ONNX" in refused("unsupported", lambda path=path: open_reader(path))
