"""A compressed checkpoint that another tool wrote is gated against its reference by the same suites, without a card."""

import re

import pytest

from support.compressed import configured, spoiled, write_compressed

DOWN = "model.layers.1.mlp.down_proj"
ROW, COLUMN = 5, 7


@pytest.fixture(scope="module")
def artefacts(tiny_checkpoint, tmp_path_factory):
    """Good ones and bad ones, of the tiny model."""
    root, (source, _) = tmp_path_factory.mktemp("artefacts"), tiny_checkpoint
    good = write_compressed(source, root / "int8")

    def faint(tensors):
        tensors[f"{DOWN}.weight_scale"][ROW] *= 0.2

    spoiled(good, root / "faint", faint)
    configured(good, root / "other-vocabulary", vocab_size=45)
    half = root / "half"
    half.mkdir()
    for file in good.iterdir():
        data = file.read_bytes()
        (half / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    return root


def test_artefacts_are_gated_against_their_reference_without_a_card(project, artefacts):
    names = ("int8", "faint", "other-vocabulary", "half")
    given = [f"--superweight-artefact={artefacts / name}" for name in names]
    run = project.gate("--superweight-model=tiny", *given, "-p", "no:xdist", "--superweight-stopping=off")
    assert run.ret == 1, run.stdout.str()
    cells = {cell["recipe"]: cell for cell in project.evidence["cells"]}
    assert {name: cell["verdict"] for name, cell in cells.items()} == {
        "baseline": "PASS",
        "int8": "PASS",
        "faint": "REGRESSION",
        "other-vocabulary": "INFRA",
        "half": "INFRA",
    }

    good = cells["int8"]
    assert (good["role"], good["promises"], good["promise"]) == ("candidate", True, "within-step")
    [weight] = good["super_weights"]
    file, reload = weight["points"]
    assert (file["point"], reload["point"]) == ("file", "reload")
    assert file["value"] == pytest.approx(reload["value"], rel=1e-6)
    assert weight["original"] == pytest.approx(project.value)
    assert abs(file["value"] - weight["original"]) <= file["step"]
    assert weight["reloaded"] == reload["value"]
    assert good["perplexity"]["chain"]["kl"]
    assert good["zero_shot"]["successor"]["n"] == 60
    assert good["checkpoint"]["activations"] == "as they are"
    assert "compressed-tensors" in good["checkpoint"]["loaded_by"]
    assert good["checkpoint"]["environment"]["compressed-tensors"]
    assert 8 < good["size"]["compressed_bits_per_weight"] < 9
    assert good["sanity"]["undeclared"] == good["sanity"]["unchanged"] == []

    gates = {gate["gate"]: gate for gate in cells["faint"]["gates"]}
    assert gates["super-weights"]["verdict"] == "REGRESSION"
    assert re.search(r"LOST: layer 1 \[5, 7\].* in the file .* off by -80", gates["super-weights"]["message"])

    for name, words in {
        "other-vocabulary": "has another vocabulary than its reference: vocab_size 45 for 44",
        "half": "is not a whole safetensors file",
    }.items():
        messages = {failure["message"] for failure in cells[name]["failures"]}
        assert len(messages) == 1, messages
        assert words in messages.pop()

    page = (project.root / "reports" / "latest" / "report.html").read_text()
    assert "in the file" in page
    assert "after reload" in page


def test_an_artefact_needs_its_reference(project, artefacts):
    run = project.gate(f"--superweight-artefact={artefacts / 'int8'}", "-p", "no:xdist")
    assert run.ret == 4
    [line] = [line for line in run.stderr.lines + run.stdout.lines if "needs its reference" in line]
    assert "expected one --superweight-model REFERENCE, found none" in line
