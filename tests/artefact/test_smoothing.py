"""A column that was multiplied as a whole cannot be told; a super weight that moved alone is told."""

import pytest
import torch

from superweight.artefact.check import check
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from support.artefacts import dense, packed

WHERE = Coordinate(layer=1, row=5, column=7)
UP, DOWN = "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def reference(tiny_checkpoint):
    return tiny_checkpoint[0]


def of(path, reference):
    found = check(open_reader(path), open_reader(reference), {WHERE: "causal"}, Promise.of("within-step"))
    return found.super_weights[0]


def smooth(factor):
    """What AWQ and SmoothQuant do to an MLP: the function is the same, its weights are not."""

    def change(tensors):
        tensors[DOWN][:, 7] *= factor
        tensors[UP][7] /= factor

    return change


@pytest.mark.parametrize("factor", [0.3, 0.8, 1.4, 3.0])
@pytest.mark.parametrize("bits", [None, 8, 4])
def test_a_smoothed_column_is_not_told(factor, bits, reference, tmp_path):
    path = dense(reference, tmp_path / "smooth", smooth(factor))
    if bits is not None:
        path = packed(path, tmp_path / "artefact", bits=bits)
    weight = of(path, reference)
    if bits == 4 and weight.kept:
        return  # rounded to within a step all the same
    assert (weight.outcome, weight.kept) == ("cannot-tell", False)
    assert float(weight.reason.split("times ")[1].split()[0]) == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize("factor", [0.3, 0.9, 1.5, -1.0])
def test_a_super_weight_that_moved_alone_is_told(factor, reference, tmp_path):
    def change(tensors):
        tensors[DOWN][5, 7] *= factor

    assert of(dense(reference, tmp_path / "copy", change), reference).outcome == ("lost" if factor < 0.5 else "moved")


def test_a_super_weight_that_is_left_behind_by_its_column_is_told(reference, tmp_path):
    def change(tensors):
        own = tensors[DOWN][5, 7].clone()
        smooth(2.0)(tensors)
        tensors[DOWN][5, 7] = own * 0.8

    assert of(dense(reference, tmp_path / "copy", change), reference).outcome == "moved"


def test_a_row_that_was_multiplied_is_told(reference, tmp_path):
    """No layer after a down projection makes up for that."""

    def change(tensors):
        tensors[DOWN][5] *= 1.5

    assert of(dense(reference, tmp_path / "copy", change), reference).outcome == "moved"


def test_a_column_of_other_numbers_is_told(reference, tmp_path):
    def change(tensors):
        generator = torch.Generator().manual_seed(0)
        tensors[DOWN][:, 7] = torch.randn(64, generator=generator) * tensors[DOWN][:, 7].std()

    assert of(dense(reference, tmp_path / "copy", change), reference).outcome in ("lost", "moved")
