"""A checkpoint of 70 thousand million weights is checked in seconds, from megabytes of it, without torch."""

import json
import struct
import subprocess
import sys

import pytest

from support.sparse import GROUP, INNER, large_artefact, large_reference

ROW, COLUMN, LAYER = 1234, 20_000, 2
DOWN = f"model.layers.{LAYER}.mlp.down_proj"
MEGABYTES = 1_000_000


def bfloat16(number):
    return struct.pack("<f", number)[2:]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A reference with one super weight of 5.5, and an artefact that holds code 7 and a scale of 0.75 for it."""
    place = tmp_path_factory.mktemp("large")
    reference, artefact = large_reference(place / "reference"), large_artefact(place / "w4")
    reference.plant(f"{DOWN}.weight", ROW * INNER + COLUMN, bfloat16(5.5))
    word, nibble = divmod(ROW * INNER + COLUMN, 8)
    artefact.plant(f"{DOWN}.weight_packed", word, struct.pack("<I", (7 + 8) << (4 * nibble)))
    artefact.plant(f"{DOWN}.weight_scale", ROW * (INNER // GROUP) + COLUMN // GROUP, bfloat16(0.75))
    return reference, artefact


@pytest.fixture(scope="module")
def found(large, tmp_path_factory):
    """What a process of its own prints, its answer, its peak of memory in bytes, and which large packages it loaded."""
    reference, artefact = large
    weights = tmp_path_factory.mktemp("list") / "list.json"
    weights.write_text(json.dumps({"super_weights": [{"layer": LAYER, "row": ROW, "column": COLUMN, "value": 5.5}]}))
    given = ["check", artefact.directory, "--reference", reference.directory, "--super-weights", weights, "--json"]
    program = (
        "import sys\nfrom superweight.cli import main\n"
        f"code = main({list(map(str, given))!r})\n"
        "loaded = sorted({'torch', 'transformers', 'safetensors'} & set(sys.modules))\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"  # rusage counts the parent's, too
        "print(code, status['VmHWM'].split()[0], loaded, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    code, peak, loaded = done.stderr.splitlines()[-1].split(" ", 2)
    return json.loads(done.stdout)[0], int(code), int(peak) * 1024, loaded


def test_files_are_as_large_as_they_say_and_take_no_disk(large):
    reference, artefact = large
    assert reference.size > 140_000 * MEGABYTES
    assert 39_000 * MEGABYTES < artefact.size < 42_000 * MEGABYTES
    assert reference.on_disk + artefact.on_disk < 50 * MEGABYTES


def test_a_super_weight_is_found_from_few_bytes(found):
    said, _, peak, loaded = found
    (weight,) = said["super_weights"]
    assert (weight["value"], weight["outcome"], weight["code"]) == (5.25, "within-step", "7 of -8 to 7")
    assert (weight["bits"], weight["original_bits"]) == ("0x40a8", "0x40b0")
    assert said["read"] < 40 * MEGABYTES
    assert peak < 400 * MEGABYTES
    assert loaded == "[]"


def test_what_is_all_hole_is_told(found):
    """The rest of these files was never written: its scales and codes are zero."""
    said, code, _, _ = found
    assert code == 1
    assert {"scale-zero", "packed-tensor-missing"} <= {finding["rule"] for finding in said["findings"]}
    assert said["unchecked"] == {}
