"""`superweight compress` and `superweight card` on the command line: what they write, say and refuse."""

import json
import shutil

import pytest

from superweight.cli import main
from superweight.report import RunInfo, build_document, to_json
from superweight.verdict import judge_cell

RECIPE = """
id = "tiny-w4"
title = "Tiny"
role = "reference"
[method]
kind = "integer"
bits = 4
symmetric = true
granularity = "group"
group_size = 8
"""


@pytest.fixture
def card(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def test_a_directory_and_a_card(tiny_checkpoint, card, tmp_path, capsys):
    source, _ = tiny_checkpoint
    assert main(["compress", str(source), "--recipe", str(card), "-o", str(tmp_path / "a"), "--round-trip"]) == 0
    said = capsys.readouterr()
    assert "compressed-tensors pack-quantized, 4 bits, symmetric, groups of 8" in said.out
    assert "of the checkpoint's" in said.out
    assert said.out.count("logits equal bit for bit") == 2
    assert "super weights: 0, named by nobody" in said.err
    told = json.loads((tmp_path / "a" / "superweight.json").read_text())
    assert told["recipe"]["id"] == "tiny-w4"
    assert [(trip["load"], trip["activations"]) for trip in told["round_trip"]] == [
        ("default", "as they are"),
        ("dequantised", "as they are"),
    ]
    assert main(["check", str(tmp_path / "a"), "--reference", str(source), "--super-weights", _list(tmp_path)]) == 0


def _list(tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"super_weights": [{"layer": 1, "row": 5, "column": 7}]}))
    return str(path)


def test_a_list_of_super_weights(tiny_checkpoint, card, tmp_path, capsys):
    source, value = tiny_checkpoint
    card.write_text(RECIPE + 'exclude = ["super-weight-modules"]\n')
    arguments = ["compress", str(source), "--recipe", str(card), "--super-weights", _list(tmp_path)]
    assert main([*arguments, "-o", str(tmp_path / "a")]) == 0
    told = json.loads((tmp_path / "a" / "superweight.json").read_text())["super_weights"][0]
    assert (told["outcome"], told["original"]) == ("exact", pytest.approx(value))
    assert "1 excluded" in capsys.readouterr().out


def test_what_loads_as_another_model_is_not_published(tiny_checkpoint, card, tmp_path, capsys, monkeypatch):
    from superweight.artefact.writing import round_trip

    source, _ = tiny_checkpoint
    load = round_trip.load_artefact

    def spoilt(directory, **how):
        model = load(directory, **how)
        model.model.norm.weight.mul_(2)
        return model

    monkeypatch.setattr(round_trip, "load_artefact", spoilt)
    assert main(["compress", str(source), "--recipe", str(card), "-o", str(tmp_path / "a"), "--round-trip"]) == 2
    assert "loaded again, the artefact is not the recipe's model, and nothing is published" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]


def test_restored_super_weights_name_the_next_command(tiny_checkpoint, card, tmp_path, capsys):
    source, _ = tiny_checkpoint
    card.write_text(RECIPE + 'super_weights = "restored"\n')
    arguments = ["compress", str(source), "--recipe", str(card), "--super-weights", _list(tmp_path)]
    assert main([*arguments, "-o", str(tmp_path / "a")]) == 0
    assert f"superweight adapter {tmp_path / 'a'} --reference {source}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--recipe", "rtn-int4-g64"], "has no deployable form"),
        (["--recipe", "no-such"], "neither a card id nor a TOML file"),
        ([], "needs --recipe"),
        (["--format", "gguf"], "needs --type"),
        (["--format", "gguf", "--type", "Q8_0", "--recipe", "integer-w8-channel"], "--recipe does not go with"),
        (["--recipe", "integer-w8-channel", "--type", "Q8_0"], "--type does not go with"),
        (["--recipe", "integer-w8-channel", "--keep-super-weights"], "--keep-super-weights does not go with"),
        (["--recipe", "integer-w8a8-channel", "--shard-size", "five"], "is no size"),
        (["--recipe", "integer-w8a8-channel", "--run", "/nowhere"], "cannot be read"),
    ],
)
def test_what_is_refused_in_a_line(tiny_checkpoint, tmp_path, capsys, arguments, told):
    source, _ = tiny_checkpoint
    assert main(["compress", str(source), *arguments, "-o", str(tmp_path / "a")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("superweight: ")
    assert told in said
    assert not list(tmp_path.iterdir())


def test_a_source_that_is_none(tmp_path, capsys):
    assert main(["compress", str(tmp_path / "x"), "--recipe", "integer-w8-channel", "-o", str(tmp_path / "a")]) == 2
    assert "neither a card id, a directory that exists" in capsys.readouterr().err


@pytest.fixture
def run(tiny_checkpoint, card, tmp_path):
    """A run directory that measured the tiny model under the tiny recipe."""
    from superweight.cards import RecipeCard, read_card
    from superweight.cards.base import slug
    from superweight.checkpoint import open_directory
    from superweight.evidence import CellEvidence

    source, _ = tiny_checkpoint
    checkpoint = {"content_hash": open_directory(source).content_hash, "dtype": "float32", "origin": "directory /x/y"}
    parameters = read_card(card, RecipeCard).method.model_dump(mode="json")
    cell = CellEvidence(
        model=slug(source.name), recipe="tiny-w4", role="reference", checkpoint=checkpoint, recipe_parameters=parameters
    )
    directory = tmp_path / "run"
    directory.mkdir()
    document = build_document(RunInfo(started="2026-01-31T00:00:00+00:00", tier="smoke"), [judge_cell(cell, [])])
    (directory / "evidence.json").write_text(to_json(document))
    return directory


def test_a_card_beside_the_files(tiny_checkpoint, card, run, tmp_path, capsys):
    source, _ = tiny_checkpoint
    arguments = ["compress", str(source), "--recipe", str(card), "--run", str(run)]
    assert main([*arguments, "-o", str(tmp_path / "a")]) == 0
    assert "# weights, tiny-w4" in (tmp_path / "a" / "README.md").read_text()
    assert main([*arguments, "-o", str(tmp_path / "b"), "--dtype", "bfloat16"]) == 2
    assert "in float32: its figures are not this artefact's" in capsys.readouterr().err
    card.write_text(RECIPE.replace("bits = 4", "bits = 3"))
    assert main([*arguments, "-o", str(tmp_path / "b")]) == 2
    assert "with other parameters: its figures are not this artefact's" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_figures_of_another_checkpoint_are_not_put_beside_it(tiny_checkpoint, card, run, tmp_path, capsys):
    source, _ = tiny_checkpoint
    shutil.copytree(source, tmp_path / "weights")
    config = json.loads((tmp_path / "weights" / "config.json").read_text())
    (tmp_path / "weights" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    arguments = ["compress", str(tmp_path / "weights"), "--recipe", str(card), "--run", str(run)]
    assert main([*arguments, "-o", str(tmp_path / "b")]) == 2
    assert "of another checkpoint" in capsys.readouterr().err


def test_a_card_by_itself(run, tmp_path, capsys):
    assert main(["card", str(run), "weights/tiny-w4"]) == 0
    assert "# weights, tiny-w4" in capsys.readouterr().out
    assert main(["card", str(run), "weights/tiny-w4", "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "README.md")
    assert main(["card", str(run), "weights/other"]) == 2
    assert "the run has no cell 'weights/other'. It has weights/tiny-w4." in capsys.readouterr().err
