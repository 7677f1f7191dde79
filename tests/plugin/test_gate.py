"""The gate end to end on a tiny model: green, red, and everything that must not be mistaken for green."""

import json
import re
import shutil
import sys

import jsonschema
import pytest

from superweight.report import json_schema

RECIPES = [
    "baseline",
    "no-op",
    "prune-super-weights",
    "clip-restore-int4-g64",
    "rtn-int4-g64",
    "clip-restore-int8-channel",
]


def test_a_green_run_and_everything_it_leaves_behind(project):
    run = project.gate("-v")
    assert run.ret == 0, run.stdout.str()
    evidence = project.evidence
    jsonschema.validate(evidence, json_schema())
    assert evidence["verdict"] == "PASS", evidence["reasons"]
    verdicts = {cell["recipe"]: (cell["role"], cell["verdict"]) for cell in evidence["cells"]}
    assert verdicts["prune-super-weights"] == ("control", "REGRESSION")
    assert verdicts["no-op"] == ("control", "PASS")
    assert verdicts["clip-restore-int8-channel"] == ("candidate", "PASS")
    assert verdicts["rtn-int4-g64"][0] == "reference"

    (kept,) = project.cell("clip-restore-int4-g64")["super_weights"]
    assert (kept["layer"], kept["expert"], kept["row"], kept["column"]) == (1, None, 5, 7)
    assert kept["survived"]
    assert kept["stored_bits"] == kept["original_bits"]
    (zeroed,) = project.cell("prune-super-weights")["super_weights"]
    assert (zeroed["stored"], zeroed["stored_bits"], zeroed["survived"]) == (0.0, "0x00000000", False)

    base, pruned = project.cell("baseline"), project.cell("prune-super-weights")
    assert pruned["perplexity"]["chain"]["value"] > 10 * base["perplexity"]["chain"]["value"]
    assert project.cell("no-op")["perplexity"]["chain"]["nll"] == base["perplexity"]["chain"]["nll"]
    assert base["zero_shot"]["successor"]["n"] == 60

    largest = {
        cell["recipe"]: [abs(peaks["down_output"]["value"]) for peaks in cell["peaks"]] for cell in evidence["cells"]
    }
    assert largest["no-op"] == largest["baseline"]
    assert max(largest["baseline"]) == largest["baseline"][1] > 100 * largest["prune-super-weights"][1]

    out = project.root / "reports" / "latest"
    store = project.root / "reports" / "store"
    (kept_report,) = store.glob("runs/*/report.html")
    assert kept_report.read_text() == (out / "report.html").read_text()
    assert kept_report.relative_to(store).as_posix() in (store / "index.html").read_text()
    assert (out / "items" / "tiny" / "baseline" / "successor.csv").read_text().count("\n") >= 61
    assert "<title>PASS" in (out / "report.html").read_text()
    assert (out / "summary.md").read_text().startswith("# ✓ PASS: may ship")
    assert evidence["run"]["left_out"] == []
    assert [cell["recipe"] for cell in evidence["cells"]] == RECIPES
    run.stdout.fnmatch_lines(
        ["*test_perplexity?tiny/clip-restore-int4-g64/chain? PASSED*", "*compression gates*", "*PASS: may ship*"]
    )


def test_two_workers_find_what_one_finds_and_keep_models_together(project):
    project.models("tiny", "twin")
    assert project.gate("-v", "--superweight-store", "none").ret == 0
    serial = project.evidence
    run = project.gate("-v", "-n", "2", "--superweight-store", "none")
    assert run.ret == 0, run.stdout.str()
    parallel = project.evidence

    def figures(evidence):
        drop = ("seconds", "checkpoint")
        return [{key: value for key, value in cell.items() if key not in drop} for cell in evidence["cells"]]

    assert figures(parallel) == figures(serial)
    assert parallel["verdict"] == serial["verdict"] == "PASS"
    workers = {}
    for worker, model in re.findall(r"\[(gw\d)\].*?PASSED suites/\S+\[(\w+)/", run.stdout.str()):
        workers.setdefault(model, set()).add(worker)
    assert {model: len(names) for model, names in workers.items()} == {"tiny": 1, "twin": 1}


def test_what_the_baseline_lacks_no_candidate_can_pass(project):
    """The corpus is gone: the candidate's own evidence must say so, not only the baseline's."""
    (project.root / "cards" / "corpora" / "chain.txt").unlink()
    run = project.gate("-k", "perplexity and clip")
    assert run.ret == 1
    cell = project.cell("clip-restore-int8-channel")
    assert cell["verdict"] == "INFRA"
    assert cell["failures"][0]["stage"] == "perplexity:chain"


def test_two_models_of_one_name_are_refused(project, tmp_path):
    other = shutil.copytree(project.weights, tmp_path / "elsewhere" / "weights")
    run = project.gate("--superweight-model", str(project.weights), "--superweight-model", str(other))
    assert run.ret == 4
    assert "two different cards have the id 'weights'" in run.stdout.str() + run.stderr.str()


def test_an_earlier_report_is_not_taken_for_this_run(project):
    out = project.root / "reports" / "latest"
    out.mkdir(parents=True)
    (out / "evidence.json").write_text('{"verdict": "PASS"}')
    path = project.root / "cards" / "models" / "tiny.toml"
    path.write_text('colour = "red"\n' + path.read_text())
    assert project.gate().ret == 4
    assert not (out / "evidence.json").exists()


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_process_that_dies_is_never_green(project, workers):
    (project.root / "suites" / "test_9_die.py").write_text(
        'import os\nimport pytest\n\n@pytest.mark.superweight_roles("baseline")\ndef test_die(cell):\n    os._exit(3)\n'
    )
    run = project.gate("-k", "baseline", *workers)
    assert run.ret != 0
    if workers:
        assert project.evidence["verdict"] == "INFRA"
    else:
        assert not (project.root / "reports" / "latest" / "evidence.json").exists()


def test_results_are_rounded_to_the_checkpoints_dtype_whatever_they_are_computed_in(project):
    import torch
    from transformers import AutoModelForCausalLM

    half = project.root / "half"
    shutil.copytree(project.weights, half)
    AutoModelForCausalLM.from_pretrained(half, dtype=torch.bfloat16).save_pretrained(half)
    project.models("tiny", path=half)
    run = project.gate("-k", "super_weights and clip", "--superweight-dtype", "float32")
    assert run.ret == 0, run.stdout.str()
    (kept,) = project.cell("clip-restore-int8-channel")["super_weights"]
    assert (kept["dtype"], kept["survived"]) == ("float32", True)
    assert int(kept["stored_bits"], 16) & 0xFFFF == 0


def test_k_selects_cells_and_still_measures_what_they_are_compared_with(project):
    run = project.gate("-k", "tiny and clip and perplexity", "-v")
    assert run.ret == 0
    run.assert_outcomes(passed=2, deselected=run.parseoutcomes()["deselected"])
    run.stdout.fnmatch_lines(["*PASS in part: not the whole tier, so no release decision*"])
    assert {cell["recipe"] for cell in project.evidence["cells"]} == {
        "baseline", "clip-restore-int8-channel", "clip-restore-int4-g64",
    }  # fmt: skip


def test_a_control_that_the_gate_cannot_see_is_red(project):
    """A prune control on weights that do nothing: the card claims nothing, detection finds nothing to prune."""
    card = project.root / "cards" / "recipes"
    card.mkdir()
    blind = 'id = "prune-super-weights"\ntitle = "Blind"\nrole = "control"\nexpects = "REGRESSION"\n[method]\nkind = "no-op"\n'
    (card / "prune-super-weights.toml").write_text(blind)
    run = project.gate("-k", "controls or baseline")
    assert run.ret == 1
    assert project.evidence["verdict"] == "INFRA"
    run.stdout.fnmatch_lines(["*must get REGRESSION and got PASS*"])


def test_a_card_that_disagrees_with_the_weights_is_red_with_both_lists(project):
    path = project.root / "cards" / "models" / "tiny.toml"
    path.write_text(path.read_text().replace("column = 7", "column = 8").replace(f"value = {project.value}", ""))
    run = project.gate("-k", "detection")
    assert run.ret == 1
    run.stdout.fnmatch_lines(
        [
            "*on the card, but not confirmed by ablation: layer 1 ?5, 8?*",
            "*confirmed by ablation, but not on the card: layer 1 ?5, 7?*",
            "*card: *layer 1 ?5, 8?*",
            "*detection: *layer 1 ?5, 7?*",
        ]
    )
    assert project.cell("baseline")["verdict"] == "REGRESSION"


def test_coordinates_outside_the_weight_are_infra(project):
    path = project.root / "cards" / "models" / "tiny.toml"
    path.write_text(path.read_text().replace("row = 5", "row = 64"))
    run = project.gate("-k", "detection")
    assert run.ret == 1
    run.stdout.fnmatch_lines(["*layer 1 ?64, 7? lies outside *down_proj*64 rows*"])
    assert project.evidence["verdict"] == "INFRA"


def test_a_promise_that_is_broken_names_coordinates_and_bits(project):
    cards = project.root / "cards" / "recipes"
    cards.mkdir()
    text = 'id = "rtn-int4-g64"\ntitle = "Promises too much"\nrole = "candidate"\n[method]\nkind = "scale-super-weights"\nfactor = 1.0000001\n'
    (cards / "rtn-int4-g64.toml").write_text(text)
    run = project.gate("-k", "super_weights and rtn")
    assert run.ret == 1
    run.stdout.fnmatch_lines(["*LOST: layer 1 ?5, 7? (causal, float32) expected * (0x*), found * (0x*)*"])
    assert project.evidence["verdict"] == "REGRESSION"


def test_weights_that_are_not_there_are_infra_and_never_skipped(project):
    project.models("tiny", path=project.root / "nowhere")
    run = project.gate()
    outcomes = run.parseoutcomes()
    assert run.ret == 1
    assert outcomes.get("skipped", 0) == outcomes.get("passed", 0) == 0
    assert project.evidence["verdict"] == "INFRA"
    assert {cell["recipe"]: cell["verdict"] for cell in project.evidence["cells"]} == dict.fromkeys(RECIPES, "INFRA")
    assert {f["reason"] for cell in project.evidence["cells"] for f in cell["failures"]} == {"not-found"}
    run.stdout.fnmatch_lines(["*nowhere*"])


def test_nan_in_a_weight_is_infra(project, tmp_path):
    from safetensors.torch import load_file, save_file

    damaged = shutil.copytree(project.weights, tmp_path / "damaged")
    tensors = load_file(damaged / "model.safetensors")
    tensors["model.layers.3.mlp.down_proj.weight"][2, 2] = float("nan")
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    project.models("tiny", path=damaged)
    run = project.gate("-k", "detection")
    assert run.ret == 1
    run.stdout.fnmatch_lines(["*NaN or infinity*down_proj.weight*"])
    assert project.evidence["cells"][0]["failures"][0]["reason"] == "non-finite"


def test_a_model_without_a_card(project):
    run = project.gate(
        "--superweight-model", str(project.weights), "--superweight-recipe", "clip-restore-int8-channel", "-v"
    )
    assert run.ret == 0, run.stdout.str()
    assert {cell["model"] for cell in project.evidence["cells"]} == {"weights"}


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_a_bad_card_stops_collection_with_one_clear_message(project, options):
    path = project.root / "cards" / "models" / "tiny.toml"
    path.write_text('colour = "red"\n' + path.read_text())
    run = project.gate(*options)
    assert run.ret != 0
    text = run.stdout.str() + run.stderr.str()
    assert "tiny.toml: not a valid ModelCard" in text
    assert "colour: Extra inputs are not permitted (found: 'red')" in text
    assert "Traceback" not in text
    assert not (project.root / "reports").exists()


def test_an_unknown_task_is_named(project):
    (project.root / "cards" / "tasks" / "successor.toml").write_text('id = "successor"\ntask = "hellaswagg"\n')
    run = project.gate("-k", "zero_shot and baseline")
    assert run.ret == 1
    run.stdout.fnmatch_lines(["*hellaswagg*hellaswag*"])
    assert project.evidence["verdict"] == "INFRA"


def test_a_corpus_shorter_than_a_window_is_infra(project):
    (project.root / "cards" / "corpora" / "chain.txt").write_text("w1 w2 w3")
    run = project.gate("-k", "perplexity and baseline")
    assert run.ret == 1
    run.stdout.fnmatch_lines(["*fewer than one window of 64*"])
    assert project.evidence["cells"][0]["failures"][0]["reason"] == "too-short"


def test_an_interrupted_run_is_infra_and_keeps_what_it_has(project):
    (project.root / "suites" / "test_9_stop.py").write_text(
        'import pytest\n\n@pytest.mark.superweight_roles("baseline")\ndef test_stop(cell):\n    raise KeyboardInterrupt\n'
    )
    run = project.gate("-k", "baseline")
    assert run.ret == 2
    assert project.evidence["verdict"] == "INFRA"
    assert "interrupted" in project.evidence["reasons"][0]
    assert project.evidence["cells"][0]["perplexity"]
    assert not [path for path in (project.root / "reports" / "latest").iterdir() if path.name.startswith(".")]


def test_a_directory_that_cannot_be_written_is_told_without_a_traceback(project):
    (project.root / "reports").write_text("a file where a directory belongs")
    run = project.gate("-k", "detection")
    assert run.ret != 0
    text = run.stdout.str() + run.stderr.str()
    assert "could not be written" in text
    assert "INTERNALERROR" not in text


def test_other_suites_see_nothing_of_the_plugin(pytester):
    pytester.makepyfile(
        "import pytest\n\n@pytest.mark.parametrize('x', ['a/b', 'c/d'])\ndef test_one(x):\n    assert x\n"
    )
    run = pytester.runpytest_subprocess("-v", "-n", "2")
    run.assert_outcomes(passed=2)
    assert "compression" not in run.stdout.str()
    assert "superweight" not in run.stdout.str().replace(str(pytester.path), "").split("plugins:")[-1].split("\n", 1)[1]
    assert not (pytester.path / "reports").exists()


def test_collecting_selects_mistral_wherever_its_weights_are(pytester, project):
    shutil.rmtree(project.root / "cards" / "tiers")
    run = project.gate("--collect-only", "-q", "-k", "mistral")
    assert "[mistral-7b-v0.1/clip-restore-int4-g64" in run.stdout.str()
    assert "smollm2" not in run.stdout.str()
    run = project.gate("--collect-only", "-q", "-k", "smollm2")
    assert "[smollm2-135m-instruct/" in run.stdout.str()
    assert "smollm2-1.7b" not in run.stdout.str()


def test_run_directory_can_be_rebuilt_from_evidence(project):
    project.gate("-k", "detection")
    out = project.root / "reports" / "latest"
    before = (out / "report.html").read_text()
    (out / "report.html").unlink()
    run = project.pytester.run(sys.executable, "-m", "superweight.cli", "report", str(out))
    assert run.ret == 0
    assert (out / "report.html").read_text() == before
    assert json.loads((out / "evidence.schema.json").read_text())["title"]


OWN = """
import pytest

@pytest.mark.superweight_roles("candidate")
def test_own(cell):
    {body}
"""


def test_a_test_of_somebodys_own_that_fails_is_in_the_headline(project):
    """Also one that is ended for taking too long, which fails by `pytest.fail`."""
    (project.root / "suites" / "test_7_own.py").write_text(OWN.format(body='pytest.fail("Timeout (>5.0s)")'))
    run = project.gate("-k", "own or int8")
    assert run.ret == 1
    assert "may ship" not in run.stdout.str()
    assert project.evidence["verdict"] == "INFRA"
    failures = project.cell("clip-restore-int8-channel")["failures"]
    assert [(one["stage"], one["reason"], one["message"]) for one in failures] == [
        ("test_own", "test-failed", "Timeout (>5.0s)")
    ]
