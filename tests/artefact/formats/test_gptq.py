"""Scalars of GPTQ, AWQ and auto-round files are what the tools' own modules make of them; what is unsure is not told."""

import numpy as np
import pytest

from superweight.artefact.check import check
from superweight.artefact.formats import Decoded, format_of
from superweight.artefact.formats.awq import ORDER, Awq
from superweight.artefact.formats.gptq import Gptq
from superweight.artefact.formats.packed_words import unpacked
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from superweight.forward.runner import CannotTell
from support.edited import array, edited, read_safetensors, tensor
from support.made_artefacts import (
    ARTEFACTS,
    COLUMNS,
    MODULE,
    REFERENCE,
    ROWS,
    SUPER_WEIGHTS,
    expect_library,
    made,
    matrix,
    scalar,
)

FILES = ARTEFACTS / "gptq"
PLANES = "gptqmodel-planes-3"
GEMV = "awq-gemv"  # holds random codes, not the reference's weights
HOLE = "gptqmodel-v1-4-asymmetric"  # a positive super weight alone in its group has a zero point of 0
TOLD = [name for name in made("gptq") if name not in (PLANES, HOLE)]
WHERE = {Coordinate(layer=0, row=row, column=column): "listed" for row, column in SUPER_WEIGHTS}


def checked(path, promise="within-step"):
    return check(open_reader(path), open_reader(REFERENCE), WHERE, Promise.of(promise))


def stored(name, leaf, kind):
    return array(read_safetensors(FILES / name / "model.safetensors")[0][f"{MODULE}.{leaf}"], kind)


def changed(name, tmp_path, settings=None, **more):
    """A file whose settings are changed; None takes one away."""

    def change(config):
        for key, value in (settings or {}).items():
            config["quantization_config"][key] = value
            if value is None:
                del config["quantization_config"][key]

    return edited(FILES / name, tmp_path / "changed", config=change, **more)


def about(name):
    artefact = open_reader(FILES / name).artefact
    return format_of(artefact, MODULE).describe(artefact, MODULE)


@pytest.mark.parametrize("name", TOLD)
def test_the_whole_matrix_is_what_the_tools_own_module_makes_of_it(name):
    expect_library(FILES / name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("auto-gptq-4", "GPTQ v1, 4 bits, groups of 32, symmetric"),
        ("auto-gptq-4-asymmetric-rows", "GPTQ v1, 4 bits, a scale a row, asymmetric"),
        ("auto-round-2-asymmetric", "GPTQ v2, 2 bits, groups of 32, asymmetric"),
        ("gptqmodel-v2-3", "GPTQ v2, 3 bits, groups of 32, symmetric"),
        ("auto-awq-asymmetric", "AWQ GEMM, 4 bits, groups of 32, asymmetric"),
        ("auto-round-awq-6-asymmetric", "AWQ GEMM, 6 bits, groups of 32, asymmetric"),
        (GEMV, "AWQ GEMV, 4 bits, groups of 64, asymmetric"),
        ("optimum-mislabelled", "GPTQ v2, 4 bits, groups of 32, symmetric"),
    ],
)
def test_a_format_is_told_in_words(name, words):
    assert about(name) == words


def test_a_super_weight_that_sets_a_signed_scale_is_what_the_tool_was_given():
    found = checked(FILES / "auto-gptq-4")
    assert [weight.value for weight in found.super_weights] == [3.140625, -2.71875]  # of bfloat16, as the tool casts
    assert stored("auto-gptq-4", "scales", np.float16).min() < 0 < stored("auto-gptq-4", "scales", np.float16).max()


def test_a_code_is_a_field_of_a_word_along_the_columns():
    """[5, 7] by hand: bits 4·7 of word 0 of row 5, group 0, whose zero point is field 5 of word 0, stored less one."""
    word = int(stored("auto-gptq-4", "qweight", np.uint32)[0, 5])
    zero = (int(stored("auto-gptq-4", "qzeros", np.uint32)[0, 0]) >> 20 & 15) + 1
    scale = float(stored("auto-gptq-4", "scales", np.float16)[0, 5])
    assert scalar(FILES / "auto-gptq-4", 5, 7).value == float(np.float16(((word >> 28) - zero) * scale))


def test_three_bits_straddle_words():
    """Column 10 of three bits: two bits at the end of word 0, one at the start of word 1; by hand for every row."""
    words = stored("gptqmodel-v2-3", "qweight", np.uint32)
    codes = (words[0] >> 30) | ((words[1] & 1) << 2)
    assert [int(scalar(FILES / "gptqmodel-v2-3", row, 10).code.split()[0]) for row in range(ROWS)] == codes.tolist()
    assert unpacked(words.T.astype(np.int32), 3, COLUMNS)[:, 10].tolist() == codes.tolist()


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_codes_of_every_width_come_out_of_their_words(bits):
    codes = np.random.default_rng(bits).integers(0, 1 << bits, 64)
    every = sum(int(code) << (at * bits) for at, code in enumerate(codes))
    words = np.array([[every >> (32 * word) & 0xFFFFFFFF for word in range(2 * bits)]], np.uint32).astype(np.int32)
    assert unpacked(words, bits, 64)[0].tolist() == codes.tolist()


def test_columns_that_were_grouped_in_another_order_take_the_scale_that_g_idx_names():
    groups = stored("gptqmodel-v1-3-ordered", "g_idx", np.int32)
    assert (np.diff(groups) < 0).any()
    scales = stored("gptqmodel-v1-3-ordered", "scales", np.float16)
    found = scalar(FILES / "gptqmodel-v1-3-ordered", 9, 40)
    code, zero = int(found.code.split()[0]), int(found.code.split()[-1])
    assert found.value == float(np.float16((code - zero) * float(scales[groups[40], 9])))


def test_rows_of_awq_are_interleaved_by_eight():
    """[5, 7]: row 5 of eight is field 6 of the word of column 7, as its zero point is of group 0's."""
    assert ORDER[5] == 6
    words = [int(stored("auto-awq-asymmetric", leaf, np.uint32)[at, 0]) for leaf, at in (("qweight", 7), ("qzeros", 0))]
    code, zero = (word >> 24 & 15 for word in words)
    scale = float(stored("auto-awq-asymmetric", "scales", np.float16)[0, 5])
    assert scalar(FILES / "auto-awq-asymmetric", 5, 7).value == float(np.float16((code - zero) * scale))


def test_steps_are_the_scale_and_end_with_the_codes():
    found, scale = scalar(FILES / "optimum-mislabelled", 5, 7), stored("optimum-mislabelled", "scales", np.float16)
    assert found.code == "15 of 0 to 15, zero 7"
    assert found.upper == float("inf")
    assert found.lower == pytest.approx(float(scale[0, 5]), rel=2e-3)


def test_a_mislabelled_file_is_read_as_its_label_says_one_step_away(tmp_path):
    right = changed("optimum-mislabelled", tmp_path, {"format": "gptq"})
    scales = stored("optimum-mislabelled", "scales", np.float16)
    for row, column in SUPER_WEIGHTS:
        as_labelled, as_stored = scalar(FILES / "optimum-mislabelled", row, column), scalar(right, row, column)
        step = float(scales[column // 32, row])
        assert as_labelled.value - as_stored.value == pytest.approx(step, rel=4e-3)


def test_labels_are_obeyed_as_transformers_obeys_them(tmp_path):
    both = changed("gptqmodel-v2-4", tmp_path, {"format": "gptq", "checkpoint_format": "gptq_v2"})
    expect_library(both)


def test_without_a_label_it_is_version_one(tmp_path):
    unlabelled = changed("gptqmodel-v1-3-ordered", tmp_path, {"format": None, "checkpoint_format": None})
    expect_library(unlabelled)


def test_settings_beside_a_config_that_has_none_count(tmp_path):
    def forget(config):
        del config["quantization_config"]

    target = edited(FILES / "gptqmodel-v2-4", tmp_path / "beside", config=forget)
    expect_library(target)


def test_without_settings_shapes_tell_awq_from_gptq(tmp_path):
    def forget(config):
        del config["quantization_config"]

    for name, kind in (("auto-awq", Awq), ("auto-gptq-4", Gptq)):
        artefact = open_reader(edited(FILES / name, tmp_path / name, config=forget)).artefact
        assert isinstance(format_of(artefact, MODULE), kind)
        assert isinstance(scalar(tmp_path / name, 5, 7), Decoded | CannotTell)


def test_groups_of_a_format_without_g_idx_follow_each_other(tmp_path):
    """auto-round's own format has no g_idx; of auto-gptq's, in which every column is in its place, it can go."""
    expect_library(edited(FILES / "auto-gptq-2", tmp_path / "no-order", drop=[f"{MODULE}.g_idx"]))


@pytest.mark.parametrize(
    ("key", "name"), [("dynamic", rf"+:{MODULE}"), ("extra_config", MODULE), ("extra_config", r".*down_proj.*")]
)
def test_a_module_has_settings_of_its_own(key, name, tmp_path):
    target = changed(
        "auto-gptq-8", tmp_path, {"bits": 4, "group_size": 128, key: {name: {"bits": 8, "group_size": 32}}}
    )
    expect_library(target)


CONTRADICTIONS = {
    "an unknown label": ("auto-gptq-4", {"format": "marlin"}, "'marlin' is not known"),
    "an unknown packing of auto-round's": ("auto-round-3", {"packing_format": "auto_round:new"}, "is not known"),
    "another method": ("auto-gptq-4", {"quant_method": "eetq"}, "'eetq' has tensors named like GPTQ's"),
    "no bits": ("auto-gptq-4", {"bits": None}, "how many bits"),
    "five bits, which GPTQ has in planes": ("auto-gptq-4", {"bits": 5}, "how many bits"),
    "bits that are a word": ("auto-gptq-4", {"bits": "4"}, "how many bits"),
    "other bits": ("auto-gptq-4", {"bits": 8}, "should be I32 of shape"),
    "other groups": ("auto-gptq-4", {"group_size": 64}, "should be I32 of shape (3, 4)"),
    "groups of nothing": ("auto-gptq-4", {"group_size": 0}, "should be I32 of shape (1, 4)"),
    "an exception": ("auto-gptq-4", {"dynamic": {rf"-:{MODULE}": {}}}, "is not quantised"),
    "a module that is said not to be packed": (
        "auto-awq",
        {"modules_to_not_convert": ["down_proj"]},
        "is not quantised",
    ),
    "modules that are packed, without this one": (
        "optimum-mislabelled",
        {"modules_in_block_to_quantize": [["self_attn.q_proj"]]},
        "is not quantised",
    ),
    "AWQ of an unknown packing": ("auto-awq", {"version": "gemv_fast"}, "'gemv_fast' is not known"),
    "AWQ's other packing": ("auto-awq", {"version": "gemv"}, "64 or 128"),
    "AWQ of three bits": ("auto-awq", {"bits": 3}, "4 bits"),
    "GEMV of groups that no kernel has": (GEMV, {"group_size": 32}, "64 or 128"),
    "GPTQ under the name of AWQ": ("auto-gptq-4", {"quant_method": "awq"}, "do not divide"),
    "AWQ under the name of GPTQ": ("auto-awq", {"quant_method": "gptq"}, "should be"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_nothing_is_told_of_a_file_that_is_not_what_its_settings_say(case, tmp_path):
    name, settings, reason = CONTRADICTIONS[case]
    found = scalar(changed(name, tmp_path, settings), 5, 7)
    assert isinstance(found, CannotTell)
    assert reason in found.reason


def test_codes_in_planes_are_not_told():
    assert isinstance(scalar(FILES / PLANES, 5, 7), CannotTell)
    assert "planes" in scalar(FILES / PLANES, 5, 7).reason


@pytest.mark.parametrize("name", ["auto-gptq-4", "auto-awq", "auto-round-3"])
@pytest.mark.parametrize("leaf", ["qzeros", "scales"])
def test_nothing_is_told_without_zero_points_or_scales(name, leaf, tmp_path):
    target = edited(FILES / name, tmp_path / "cut", drop=[f"{MODULE}.{leaf}"])
    found = open_reader(target).scalar(Coordinate(layer=0, row=5, column=7))
    assert isinstance(found, CannotTell)


@pytest.mark.parametrize("value", [-1, 6, 2**31 - 1])
def test_a_group_that_is_not_there_is_not_told(value, tmp_path):
    groups = stored("auto-gptq-4", "g_idx", np.int32)
    groups[7] = value
    target = edited(FILES / "auto-gptq-4", tmp_path / "groups", put={f"{MODULE}.g_idx": tensor("I32", groups)})
    assert f"is {value}" in scalar(target, 5, 7).reason
    assert isinstance(scalar(target, 5, 8), Decoded)


def test_order_that_is_said_and_not_stored_is_not_told(tmp_path):
    target = edited(FILES / "gptqmodel-v1-3-ordered", tmp_path / "order", drop=[f"{MODULE}.g_idx"])
    assert "no g_idx says which" in scalar(target, 5, 7).reason


def test_a_zero_point_that_version_one_cannot_hold_is_not_told():
    """15 is stored at row 5 of group 0: gptqmodel reads 0 there and one more at row 6; others 16, and what is stored."""
    assert (stored(HOLE, "qzeros", np.uint32)[0, 0] >> 20) & 15 == 15
    assert [isinstance(scalar(FILES / HOLE, row, 7), CannotTell) for row in range(4, 8)] == [False, True, True, False]
    assert isinstance(scalar(FILES / HOLE, 5, 40), Decoded)
    assert [weight.outcome for weight in checked(FILES / HOLE).super_weights] == ["cannot-tell", "within-step"]


def test_version_two_holds_every_zero_point(tmp_path):
    """The same codes with zero points as they are: what is told then is what gptqmodel's module made of version 1."""
    zeros = unpacked(stored(HOLE, "qzeros", np.int32), 4, ROWS) + 1
    zeros[0, 5], zeros[0, 6] = 0, zeros[0, 6] + 1
    words = (zeros.reshape(6, 4, 8) << (4 * np.arange(8))).sum(axis=2).astype(np.uint32).astype(np.int32)
    put = {f"{MODULE}.qzeros": tensor("I32", words)}
    settings = {"format": "gptq_v2", "checkpoint_format": "gptq_v2"}
    expect_library(changed(HOLE, tmp_path, settings, put=put))


def test_outside_the_matrix_nothing_is_told():
    for name in ("auto-gptq-4", "auto-awq", GEMV):
        assert "lies outside" in scalar(FILES / name, ROWS, 0).reason
        assert "lies outside" in scalar(FILES / name, 0, COLUMNS).reason


@pytest.mark.parametrize("name", ["auto-gptq-4", "auto-round-3", "auto-awq", GEMV])
def test_a_few_words_are_read(name):
    reader = open_reader(FILES / name)
    reader.scalar(Coordinate(layer=0, row=5, column=7))
    assert reader.read <= 26


@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_scales_of_other_dtypes_make_values_of_theirs(kind, tmp_path):
    scales = stored("auto-gptq-4", "scales", np.float16).astype(np.float32)
    wide = scales if kind == "F32" else (scales.view(np.uint32) >> 16).astype(np.uint16)
    put = {f"{MODULE}.scales": tensor(kind, wide)}
    found = scalar(edited(FILES / "auto-gptq-4", tmp_path / kind, put=put), 5, 7)
    assert found.dtype == {"F32": "float32", "BF16": "bfloat16"}[kind]
    assert found.value == pytest.approx(3.1337, rel=1e-2)


def test_nonsense_in_place_of_settings_never_raises_or_is_told(tmp_path):
    """Wrong types everywhere: each is a reason, or the value that the file has."""
    right = matrix(FILES / "auto-gptq-4")[0][5, 7]
    nonsense = [None, True, -1, 0, 3.5, "x", [], {}, [["x"]], {"(": {}}, {"+:(": 1}, 10**9]
    for at, value in enumerate(nonsense):
        for key in ("bits", "group_size", "sym", "format", "dynamic", "extra_config", "modules_to_not_convert"):
            target = changed("auto-gptq-4", tmp_path / f"{at}-{key}", {key: value} if value is not None else {})
            found = scalar(target, 5, 7)
            assert isinstance(found, CannotTell) or found.value == right, (key, value)
