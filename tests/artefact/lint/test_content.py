"""Weights that are not the reference's, are all a step off, or were clipped."""

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32

from superweight.artefact.check import check
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from support.artefacts import dense, packed

DOWN = "model.layers.{}.mlp.down_proj"
PLANTED = Coordinate(layer=1, row=5, column=7)


def test_layers_that_changed_places(reference, look, tmp_path):
    def swap(tensors, config):
        for leaf in ("weight_packed", "weight_scale"):
            one, other = (f"{DOWN.format(layer)}.{leaf}" for layer in (2, 3))
            tensors[one], tensors[other] = tensors[other], tensors[one]

    path = packed(reference, tmp_path / "w4", change=swap)
    assert look(path, alone=True) == {}
    assert [one.split("weights of ")[1][:7] for one in look(path)["weights-unlike"]] == ["layer 2", "layer 3"]


def test_rows_of_codes_in_another_order(reference, look, tmp_path):
    def shuffle(tensors, config):
        for layer in range(6):
            name = f"{DOWN.format(layer)}.weight_packed"
            tensors[name] = tensors[name].flip(0)

    assert len(look(packed(reference, tmp_path / "w4", change=shuffle))["weights-unlike"]) == 6


@pytest.mark.parametrize("by", [-1, 1])
def test_codes_that_are_all_a_step_off(by, reference, look, tmp_path):
    """As zero points of one version of a format that are read as another's."""

    def shift(tensors, config):
        for name in [name for name in tensors if name.endswith("_packed")]:
            shape = torch.Size(tensors[name.replace("packed", "shape")].tolist())
            codes = unpack_from_int32(tensors[name], 4, shape)
            tensors[name] = pack_to_int32((codes + by).clamp(-8, 7), 4)

    (found,) = look(packed(reference, tmp_path / "w4", change=shift))["weights-shifted"]
    assert float(found.split("lies ")[1].split()[0]) == pytest.approx(by, abs=0.15)


def of(path, reference, promise="within-step"):
    return check(open_reader(path), open_reader(reference), {PLANTED: "causal"}, Promise.of(promise))


def rules(found):
    return [finding.rule for finding in found.findings]


def clip_then_quantise(reference, tmp_path, bits=4):
    """Weights pulled in to what the rest of the matrix reaches, before scales are chosen."""

    def clip(tensors):
        matrix = tensors[f"{DOWN.format(1)}.weight"]
        limit = matrix.abs().flatten().sort().values[-2]
        matrix.clamp_(-limit, limit)

    return packed(dense(reference, tmp_path / "clipped", clip), tmp_path / "w4", bits=bits)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_super_weight_that_was_clipped_before_rounding(bits, reference, tmp_path):
    found = of(clip_then_quantise(reference, tmp_path, bits), reference)
    assert rules(found) == ["super-weight-clipped"]
    assert "the largest that its scale can hold" in found.findings[0].found


def test_a_clipped_dense_matrix(reference, tmp_path):
    def clip(tensors):
        matrix = tensors[f"{DOWN.format(1)}.weight"]
        limit = matrix[5].abs().sort().values[-2]
        matrix.clamp_(-limit, limit)

    found = of(dense(reference, tmp_path / "copy", clip), reference)
    assert rules(found) == ["super-weight-clipped"]
    assert "none is larger" in found.findings[0].found


def test_a_super_weight_that_keeps_its_promise_was_not_clipped(reference, tmp_path):
    found = of(packed(reference, tmp_path / "w4"), reference)
    assert found.super_weights[0].code in ("7 of -8 to 7", "-8 of -8 to 7", "-7 of -8 to 7")
    assert rules(found) == []


def test_a_super_weight_that_is_merely_smaller_was_not_clipped(reference, tmp_path):
    def shrink(tensors):
        tensors[f"{DOWN.format(1)}.weight"][5, 7] *= 0.7

    found = of(dense(reference, tmp_path / "copy", shrink), reference)
    assert found.broken
    assert rules(found) == []


def test_a_constant_layer_is_unlike(reference, look, tmp_path):
    def flatten(tensors):
        tensors[f"{DOWN.format(2)}.weight"].fill_(0.25)

    assert np.size(look(dense(reference, tmp_path / "copy", flatten))["weights-unlike"]) == 1
