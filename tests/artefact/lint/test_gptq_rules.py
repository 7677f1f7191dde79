"""Rules on GPTQ, AWQ and auto-round files find what ruins them, and leave files alone that tools made well."""

import json

import numpy as np
import pytest

from superweight.artefact.check import check
from superweight.artefact.lint import RULES, gptq, lint, packed
from superweight.artefact.lint.rule import Subject
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from support.edited import array, edited, read_safetensors, tensor
from support.made_artefacts import ARTEFACTS, MODULE, REFERENCE, SUPER_WEIGHTS, faults, made

FILES = ARTEFACTS / "gptq"
BAD = {"optimum-mislabelled": {"gptq-version-disagrees", "gptq-zero-points"}}
WARNED = {"gptqmodel-v1-4-asymmetric": {"gptq-zero-overflow"}}
QWEIGHT, QZEROS, SCALES, G_IDX = (f"{MODULE}.{leaf}" for leaf in ("qweight", "qzeros", "scales", "g_idx"))


def stored(name, tensor_name, kind=np.int32):
    return array(read_safetensors(FILES / name / "model.safetensors")[0][tensor_name], kind)


def put(name, value, kind="I32"):
    return {"put": {name: tensor(kind, value)}}


def settings(**changes):
    """A change of config.json's settings; None takes one away."""

    def change(config):
        own = config["quantization_config"]
        own.update(changes)
        for key in [key for key, value in changes.items() if value is None]:
            del own[key]

    return {"config": change}


def beside(**changes):
    return {"other": {"quantize_config.json": lambda content: content.update(changes)}}


def shifted(name, by):
    """Every zero point of four bits moved, in all of its words at once."""
    words = stored(name, QZEROS).astype(np.int64) + by * 0x11111111
    return put(QZEROS, (words & 0xFFFFFFFF).astype(np.uint32).astype(np.int32))


def one_group(value):
    groups = stored("auto-gptq-4", G_IDX)
    groups[7] = value
    return put(G_IDX, groups)


def plain_twin(name):
    """A second layer whose down projection is stored as plain numbers."""
    return put(MODULE.replace("layers.0", "layers.1") + ".weight", np.ones((32, 192), np.float16), "F16")


REBUILT = {
    "labels of one file that differ": (
        "gptqmodel-v1-3-ordered",
        settings(checkpoint_format="gptq_v2", format="gptq"),
        {"gptq-version-disagrees", "gptq-zero-points"},
    ),
    "a label in one file alone": (
        "gptqmodel-v2-3",
        settings(format=None, checkpoint_format=None),
        {"gptq-version-disagrees", "gptq-zero-points"},
    ),
    "other bits in the other file": ("gptqmodel-v2-4", beside(bits=3), {"metadata-disagrees"}),
    "other groups in the other file": ("gptqmodel-v2-4", beside(group_size=64), {"metadata-disagrees"}),
    "another symmetry in the other file": ("gptqmodel-v2-4", beside(sym=False), {"metadata-disagrees"}),
    "zero points of version 2 under version 1": ("auto-gptq-4", shifted("auto-gptq-4", 1), {"gptq-zero-points"}),
    "zero points of version 1 under auto-round's version 1, and one less": (
        "auto-gptq-4",
        shifted("auto-gptq-4", -1),
        {"gptq-zero-points"},
    ),
    "AWQ that says symmetric with zero points elsewhere": ("auto-awq", shifted("auto-awq", -1), {"gptq-zero-points"}),
    "AWQ that is not symmetric and says so": (
        "auto-awq-asymmetric",
        settings(sym=True, zero_point=False),
        {"gptq-zero-points"},
    ),
    "GEMV that is not symmetric and says so": ("awq-gemv", settings(zero_point=False), {"gptq-zero-points"}),
    "a negative group": ("auto-gptq-4", one_group(-1), {"gptq-group-index", "gptq-order-unsaid"}),
    "a group too many": ("auto-gptq-4", one_group(6), {"gptq-group-index", "gptq-order-unsaid"}),
    "a column in another group": ("auto-gptq-4", one_group(3), {"gptq-group-index", "gptq-order-unsaid"}),
    "order that the settings do not say": (
        "gptqmodel-v1-3-ordered",
        {**settings(desc_act=False), **beside(desc_act=False)},
        {"gptq-order-unsaid"},
    ),
    "order that is said and not stored": ("gptqmodel-v1-3-ordered", {"drop": [G_IDX]}, {"packed-tensor-missing"}),
    "exceptions that one loader reads": (
        "gptqmodel-v2-4",
        settings(dynamic={r"-:model\.layers\.7\.": {}}),
        {"gptq-dynamic"},
    ),
    "no zero points": ("auto-gptq-4", {"drop": [QZEROS]}, {"packed-tensor-missing"}),
    "no scales": ("auto-awq", {"drop": [SCALES]}, {"packed-tensor-missing"}),
    "no codes": ("auto-round-3", {"drop": [QWEIGHT]}, {"packed-tensor-missing"}),
    "nothing packed": ("auto-round-3", {"drop": [QWEIGHT, QZEROS, SCALES]}, {"packed-tensor-missing"}),
    "a layer left as plain numbers": ("auto-gptq-4", plain_twin("auto-gptq-4"), {"packed-tensor-missing"}),
    "AWQ under the name of GPTQ": ("auto-awq", settings(quant_method="gptq", version=None), {"packing-disagrees"}),
    "GPTQ under the name of AWQ": ("auto-gptq-4", settings(quant_method="awq"), {"packing-disagrees"}),
    "GEMM under the name of GEMV": ("auto-awq", settings(version="gemv"), {"packing-disagrees"}),
    "GEMV under the name of GEMM": ("awq-gemv", settings(version="gemm"), {"packing-disagrees", "scale-zero"}),
    "other bits": ("auto-gptq-4", settings(bits=8), {"packed-bits"}),
    "other bits of AWQ": ("auto-round-awq-6-asymmetric", settings(bits=5), {"packed-bits"}),
    "other groups": ("auto-gptq-4", settings(group_size=64), {"packed-shapes"}),
    "other groups of GEMV": ("awq-gemv", settings(group_size=128), {"packed-shapes", "scale-zero"}),
    "zero points of another layer": (
        "auto-gptq-4",
        put(QZEROS, np.full((5, 4), 0x77777777, np.int32)),
        {"packed-shapes"},
    ),
    "scales of another layer": ("auto-awq", put(SCALES, np.ones((3, 32), np.float16), "F16"), {"packed-shapes"}),
    "scales that are whole numbers": ("auto-awq", put(SCALES, np.ones((6, 32), np.int16), "I16"), {"packed-shapes"}),
    "codes in words of another size": (
        "auto-gptq-4",
        put(QWEIGHT, np.ones((24, 32), np.int64), "I64"),
        {"packed-shapes"},
    ),
    "an exception that is packed": (
        "auto-round-3",
        settings(extra_config={MODULE: {"bits": 16}}),
        {"packed-shapes"},
    ),
    "no bits": ("auto-gptq-4", settings(bits=None), {"packed-shapes"}),
    "codes that were never filled": (
        "auto-gptq-4",
        put(QWEIGHT, np.zeros((24, 32), np.int32)),
        {"packed-tensor-missing"},
    ),
    "scales of zero": ("auto-gptq-4", put(SCALES, np.zeros((6, 32), np.float16), "F16"), {"scale-zero"}),
}


@pytest.mark.parametrize("name", [name for name in made("gptq") if name not in {**BAD, **WARNED}])
def test_files_that_tools_made_well_are_left_alone(name):
    assert not faults(FILES / name)


@pytest.mark.parametrize("name", {**BAD, **WARNED})
def test_files_that_tools_made_badly_are_found(name):
    assert faults(FILES / name) == {**BAD, **WARNED}[name]


@pytest.mark.parametrize("case", REBUILT)
def test_what_ruins_a_file_is_found(case, tmp_path):
    name, change, expected = REBUILT[case]
    assert faults(edited(FILES / name, tmp_path / "bad", **change)) == expected


def test_every_rule_here_has_a_bad_file():
    tried = set().union(*BAD.values(), *WARNED.values(), *(expected for _, _, expected in REBUILT.values()))
    assert {rule.id for rule in (*packed.RULES, *gptq.RULES)} <= tried
    assert {*packed.RULES, *gptq.RULES} <= {*RULES}


def test_a_mislabelled_file_is_broken_though_each_super_weight_is_within_a_step():
    """All that remains of a shift of one step, where the nearest code was half a step off to the other side."""
    where = {Coordinate(layer=0, row=row, column=column): "listed" for row, column in SUPER_WEIGHTS}
    found = check(open_reader(FILES / "optimum-mislabelled"), open_reader(REFERENCE), where, Promise.of("within-step"))
    assert found.broken
    assert {weight.outcome for weight in found.super_weights} == {"within-step"}


def test_the_fault_says_what_is_stored_and_what_it_does():
    findings, _ = lint(Subject(open_reader(FILES / "optimum-mislabelled")))
    told = {finding.rule: f"{finding.where} {finding.found}" for finding in findings}
    assert "config.json (format) gptq_v2, quantize_config.json (format) gptq" in told["gptq-version-disagrees"]
    assert "zero point 8 everywhere" in told["gptq-zero-points"]
    assert "found 7, which moves every weight by 1 times its scale: version 1's under" in told["gptq-zero-points"]


def test_an_exception_may_be_plain(tmp_path):
    name = MODULE.replace("layers.0", "layers.1")
    change = settings(extra_config={name: {"bits": 16}})
    assert not faults(edited(FILES / "auto-round-3", tmp_path / "plain", **change, **plain_twin("auto-round-3")))


def test_settings_that_are_no_json_leave_a_rule_out(tmp_path):
    target = edited(FILES / "gptqmodel-v2-4", tmp_path / "half")
    (target / "quantize_config.json").write_text('{"bits": ')
    _, unchecked = lint(Subject(open_reader(target)))
    assert "gptq-version-disagrees" in unchecked


def test_other_formats_are_not_looked_at(tmp_path):
    """Tensors of these names that a method of another name stores."""
    config = json.loads((FILES / "auto-gptq-4" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "gptq"
    target = edited(FILES / "auto-gptq-4", tmp_path / "other", **settings(quant_method="eetq", bits=8))
    assert not faults(target)
