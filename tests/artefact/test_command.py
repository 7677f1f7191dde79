"""`superweight check`: what it prints, and what it answers."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from superweight.cli import main
from support.artefacts import dense, packed

PLANTED = {"layer": 1, "row": 5, "column": 7}
DOWN = "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def reference(tiny_checkpoint):
    return tiny_checkpoint[0]


@pytest.fixture(scope="module")
def listed(tmp_path_factory, tiny_checkpoint):
    """A list with the planted weight, as detection writes it."""
    path = tmp_path_factory.mktemp("list") / "super_weights.json"
    path.write_text(
        json.dumps({"super_weights": [{**PLANTED, "expert": None, "status": "causal", "value": tiny_checkpoint[1]}]})
    )
    return path


@pytest.fixture
def check(reference, listed, capsys):
    """The command with the reference and the list, unless told otherwise: its answer, what it printed and said."""

    def run(*arguments, source=reference, weights=listed):
        given = [
            *(["--reference", str(source)] if source else []),
            *(["--super-weights", str(weights)] if weights else []),
        ]
        code = main(["check", *map(str, arguments), *given])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def artefact(reference, tmp_path):
    return packed(reference, tmp_path / "w4")


def test_a_good_artefact_is_as_promised(check, artefact):
    code, out, err = check(artefact)
    assert (code, err) == (0, "")
    assert "compressed-tensors pack-quantized, 4 bits, symmetric, groups of 32" in out
    assert "✓ all 1 super weights as promised (within-step)" in out


def test_rounded_weights_are_not_exact(check, artefact):
    code, out, _ = check(artefact, "--promise", "exact")
    assert code == 1
    assert "✗ do not ship: 1 of 1 super weights not as promised" in out


def test_a_bound_in_per_cent(check, artefact):
    assert check(artefact, "--promise", "20 %")[0] == 0
    assert check(artefact, "--promise", "0.01 %")[0] == 1


def test_a_lost_super_weight_is_told(check, reference, tmp_path):
    def erase(tensors, config):
        tensors[f"{DOWN}.weight_scale"][5] *= 0.01

    code, out, _ = check(packed(reference, tmp_path / "w4", change=erase))
    assert code == 1
    assert "✗ LOST" in out


def test_a_module_that_is_left_alone_is_exact(check, reference, tmp_path):
    code, out, _ = check(packed(reference, tmp_path / "w4", ignore=["layers.1.mlp.down_proj"]), "--promise", "exact")
    assert code == 0
    assert "✓ exact" in out


def test_bfloat16_beside_float32_is_within_a_step(check, reference, tmp_path):
    copy = dense(reference, tmp_path / "bf16", lambda tensors: None, torch.bfloat16)
    assert check(copy)[0] == 0
    assert check(copy, "--promise", "exact")[0] == 1


def test_a_changed_float32_weight_is_moved(check, reference, tmp_path):
    def nudge(tensors):
        tensors[f"{DOWN}.weight"][5, 7] *= 1.001

    code, out, _ = check(dense(reference, tmp_path / "copy", nudge))
    assert code == 1
    assert "✗ moved" in out
    assert "+0.10%" in out


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_what_is_no_number_is_lost(check, reference, tmp_path, value):
    def spoil(tensors):
        tensors[f"{DOWN}.weight"][5, 7] = value

    code, out, _ = check(dense(reference, tmp_path / "copy", spoil))
    assert code == 1
    assert "LOST" in out


def test_without_a_reference_nothing_is_known_of_super_weights(check, artefact):
    code, out, _ = check(artefact, source=None, weights=None)
    assert code == 2
    assert "nothing is known of super weights without --reference" in out


def test_the_lint_alone_needs_no_reference(check, artefact):
    code, out, _ = check(artefact, "--lint", source=None, weights=None)
    assert code == 0
    assert "✓ no fault of the format" in out


def test_the_lint_alone_with_a_reference_looks_for_no_super_weight(check, artefact, reference):
    assert check(artefact, "--lint", weights=None)[0] == 0


def test_json_holds_every_field(check, artefact):
    code, out, _ = check(artefact, "--json")
    (found,) = json.loads(out)
    assert code == 0
    assert found["super_weights"][0]["outcome"] == "within-step"
    assert found["super_weights"][0]["row"] == 5
    assert found["named_by"].endswith("super_weights.json")
    assert 0 < found["read"] < 1_000_000


def test_a_directory_of_artefacts_gives_one_table(check, reference, tmp_path):
    shop = tmp_path / "shop"
    packed(reference, shop / "good")
    packed(reference, shop / "bad", change=lambda tensors, config: tensors[f"{DOWN}.weight_scale"].mul_(0.01))
    shutil.copytree(reference, shop / "original")
    (shop / ".cache").mkdir()
    code, out, err = check(shop, source=shop / "original")
    assert (code, err) == (1, "")
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["bad", "good"]
    assert out.count("✓ all 1 super weights as promised") == 1
    assert "original " not in out.split("\n\n")[0].replace("original_", "")


def test_one_that_cannot_be_read_does_not_hide_the_others(check, reference, tmp_path):
    shop = tmp_path / "shop"
    packed(reference, shop / "good")
    (shop / "half").mkdir()
    shutil.copy(reference / "config.json", shop / "half")
    code, out, err = check(shop)
    assert code == 2
    assert "? could not be checked" in out
    assert "✓ all 1 super weights" in out
    assert err.count("\n") == 1
    assert "model.safetensors" in err


def truncated(path):
    data = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(data[: len(data) // 2])


def without_a_shard(path):
    next(path.glob("model-00002*")).unlink()


def torn_json(path):
    (path / "config.json").write_text('{"model_type": "llama", ')


def pickled(path):
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


HALF_WRITTEN = {
    "truncated": (1, truncated, "cut short"),
    "a shard is missing": (3, without_a_shard, "model-00002-of-00003.safetensors"),
    "torn settings": (1, torn_json, "not valid JSON"),
    "pickle": (1, pickled, "pickle"),
    "no weights": (1, lambda path: (path / "model.safetensors").unlink(), "neither model.safetensors nor"),
    "a link to nowhere": (
        1,
        lambda path: ((path / "model.safetensors").unlink(), (path / "model.safetensors").symlink_to("gone")),
        "neither",
    ),
}


@pytest.mark.parametrize("what", HALF_WRITTEN)
def test_half_written_directories_are_one_clear_line(what, check, reference, tmp_path):
    shards, damage, said = HALF_WRITTEN[what]
    path = packed(reference, tmp_path / "half", shards=shards)
    damage(path)
    code, out, err = check(path)
    assert (code, out) == (2, "")
    assert err.startswith("superweight: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 128}, "hidden_size is 64 in the reference, 128 in the artefact"),
        ({"num_hidden_layers": 5}, "num_hidden_layers is 6 in the reference, 5 in the artefact"),
        ({"intermediate_size": 97}, "intermediate_size"),
        ({"vocab_size": 32000}, "vocab_size"),
        ({"model_type": "gpt_neox"}, "model_type"),
    ],
)
def test_another_model_is_one_clear_line(changes, said, check, reference, tmp_path):
    path = packed(reference, tmp_path / "w4", change=lambda tensors, config: config.update(changes))
    code, out, err = check(path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "another model than the reference" in err
    assert said in err


def test_the_reference_itself_proves_nothing(check, reference):
    code, _, err = check(reference)
    assert code == 2
    assert "is the reference itself" in err


def test_a_compressed_reference_is_refused(check, artefact):
    code, _, err = check(artefact, source=artefact)
    assert code == 2
    assert "is compressed itself" in err


def test_a_list_of_another_model_is_refused(check, artefact, tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"super_weights": [{**PLANTED, "value": -0.25}]}))
    code, _, err = check(artefact, weights=path)
    assert code == 2
    assert "of another model" in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "JSON object"),
        ('{"super_weights": []}', "should list super weights"),
        ('{"super_weights": [{"layer": 1, "row": 5, "column": 7, "status": "inert"}]}', "only inert"),
        ('{"super_weights": [{"layer": 1, "row": 5}]}', "whole numbers"),
        ('{"super_weights": [{"layer": 1, "row": -5, "column": 0}]}', "whole numbers"),
        ('{"super_weights": [7]}', "whole numbers"),
        ('{"super_weights": [{"layer": 1, "row": 999, "column": 7}]}', "lies outside"),
        ('{"super_weights": [{"layer": 99, "row": 5, "column": 7}]}', "layer 99"),
        ('{"super_weights": [{"layer": 1, "row": 5, "column": 7, "expert": 0}]}', "expert 0"),
    ],
)
def test_lists_that_cannot_be_used(text, said, check, artefact, tmp_path):
    path = tmp_path / "list.json"
    path.write_text(text)
    code, out, err = check(artefact, weights=path)
    assert (code, out) == (2, "")
    assert said in err


def test_a_card_without_super_weights_is_refused(check, artefact):
    code, _, err = check(artefact, weights="card")
    assert code == 2
    assert "names no super weights" in err


@pytest.mark.parametrize("asked", ["", "50 %", "near"])
def test_a_promise_that_is_none_is_refused(asked, check, artefact):
    code, _, err = check(artefact, "--promise", asked)
    assert code == 2
    assert err.startswith("superweight: --promise: expected")


def test_a_list_without_a_reference_is_refused(check, artefact, listed):
    assert check(artefact, source=None)[0] == 2


@pytest.mark.parametrize("name", ["nothing-here", "no-such/repository"])
def test_what_is_not_there_is_told(name, check):
    code, out, err = check(name)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


def test_an_unknown_file_is_told(check, tmp_path):
    path = tmp_path / "weights.xyz"
    path.write_bytes(b"\0" * 64)
    code, _, err = check(path)
    assert code == 2
    assert "kind that is not known here" in err


def test_an_unknown_format_cannot_be_told(check, reference, tmp_path):
    def rename(tensors, config):
        config["quantization_config"] = {"quant_method": "something-new"}
        for name in [name for name in tensors if name.endswith(".weight_packed")]:
            tensors[name.replace("packed", "blob")] = tensors.pop(name)

    code, out, _ = check(packed(reference, tmp_path / "new", change=rename))
    assert code == 2
    assert "? cannot tell: 1 of 1 super weights" in out
    assert "weight_blob I32" in out


def test_detection_names_the_weights_where_the_card_does_not(check, artefact, capsys):
    code, out, _ = check(artefact, weights=None)
    assert code in (0, 1)
    assert "super weights by detection" in out
    assert "layer 1 [5, 7]" in out


def test_no_torch_is_imported(artefact, reference, listed):
    program = (
        "import sys\nfrom superweight.cli import main\n"
        f"code = main(['check', {str(artefact)!r}, '--reference', {str(reference)!r}, '--super-weights', {str(listed)!r}])\n"
        "print(code, sorted({'torch', 'transformers', 'safetensors', 'compressed_tensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
