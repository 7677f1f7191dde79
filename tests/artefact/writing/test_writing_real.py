"""The embedded model as an artefact: written, read by formulas, loaded, and its super weights looked up."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from superweight.artefact.check import check
from superweight.artefact.reading import open_reader
from superweight.artefact.super_weight_list import of_card
from superweight.artefact.writing.compressed_tensors import write
from superweight.artefact.writing.round_trip import round_trip
from superweight.cards import load_library
from superweight.cards.promise import Promise

pytestmark = pytest.mark.real

DOWN = "model.layers.11.mlp.down_proj"


@pytest.fixture(scope="module")
def known():
    return of_card(load_library().models["smollm2-135m-instruct"])


@pytest.mark.parametrize("name", ["integer-w4-g64-symmetric", "integer-w8a8-channel"])
def test_written_checked_and_loaded(embedded, known, tmp_path, name):
    card = load_library().recipes[name]
    made = write(embedded, card, tmp_path / name, known, progress=False, shard_size=60 * 10**6)
    assert made.modules == 210
    assert made.bytes < 0.45 * made.source_bytes
    found = check(open_reader(made.directory), open_reader(embedded.directory), known, Promise("within-step"))
    assert not found.broken
    assert not found.findings
    assert {one.outcome for one in found.super_weights} <= {"exact", "within-step"}
    loads = {one.load: one for one in round_trip(made.directory, embedded, card, list(known))}
    assert all(one.equal and one.parameters == 272 for one in loads.values())
    assert loads["default"].activations == ("quantised" if "w8a8" in name else "as they are")


def test_a_whole_matrix_by_hand(embedded, tmp_path):
    """All 884,736 codes of the matrix with the largest super weight, from the checkpoint in float64."""
    card = load_library().recipes["integer-w4-g64-symmetric"]
    made = write(embedded, card, tmp_path / "a", {}, progress=False)
    with safe_open(made.directory / "model.safetensors", framework="pt") as file:
        packed = file.get_tensor(f"{DOWN}.weight_packed").numpy().view(np.uint32)
        scale = file.get_tensor(f"{DOWN}.weight_scale").numpy().astype(np.float64)
    original = embedded.read(f"{DOWN}.weight").numpy().astype(np.float64).reshape(576, 24, 64)
    shifts = 4 * np.arange(8, dtype=np.uint32)
    codes = ((packed[..., None] >> shifts) & 15).astype(np.int64).reshape(576, 24, 64) - 8
    np.testing.assert_allclose(scale, np.abs(original).max(-1) / 7, rtol=1e-7)
    expected = np.clip(np.round(original / scale[..., None]), -7, 7)
    near_a_tie = np.abs(np.abs(original / scale[..., None] % 1) - 0.5) < 1e-5
    assert (codes == expected)[~near_a_tie].all()
    assert json.loads((made.directory / "superweight.json").read_text())["super_weights"] == []
    row, column = 507, 1229
    value = codes[row, column // 64, column % 64] * scale[row, column // 64]
    assert value == pytest.approx(float(embedded.read(f"{DOWN}.weight")[row, column]), rel=1e-6)  # its group's extreme


def test_rounded_to_bfloat16_first(embedded, known, tmp_path):
    card = load_library().recipes["integer-w8-channel"]
    made = write(embedded, card, tmp_path / "a", known, progress=False, dtype="bfloat16")
    assert made.bytes < 0.33 * made.source_bytes
    (found,) = round_trip(made.directory, embedded, card, list(known), loads=["default"], dtype="bfloat16")
    assert found.equal
    with safe_open(made.directory / "model.safetensors", framework="pt") as file:
        kept = file.get_tensor(f"{DOWN}.weight")
    assert torch.equal(kept, embedded.read(f"{DOWN}.weight").to(torch.bfloat16))
