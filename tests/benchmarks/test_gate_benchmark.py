"""The gate's benchmark: the work given to lm-eval is ours, and figures add up; how long anything took is not asked."""

import json
import math
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gate
import gate_peer
from superweight.cards import TierCard, load_library

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROWS = {"arc_easy": [6, 10], "hellaswag": [3, 10]}


@pytest.fixture
def work(tmp_path):
    tier = gate.tier_of(load_library().tiers["nightly"], limit=10, windows=2)
    return gate.Work(["no-op", "rtn-int4-g64"], tier, tmp_path, {})


def cell(recipe, *, items=10, windows=2, failures=()):
    tasks, texts = ("arc_easy", "hellaswag", "piqa", "sciq"), ("wiki-embedded", "web-embedded")
    return {
        "recipe": recipe,
        "role": "baseline" if recipe == "baseline" else "reference",
        "verdict": "PASS",
        "failures": list(failures),
        "seconds": {"sanity": 1.0, "zero-shot:piqa": 2.0, "zero-shot:sciq": 3.0},
        "zero_shot": {name: {"n": items, "metrics": {"acc": 0.6}} for name in tasks},
        "perplexity": {name: {"windows": windows, "tokens": windows * 1023} for name in texts},
    }


def checkpoint(recipe, seconds, saving):
    correct = {f"gate_{name}": pair for name, pair in ROWS.items()}
    return {"recipe": recipe, "seconds": seconds, "saving": saving, "correct": correct}


def found(**more):
    """What the benchmark found: the gate took 50 and 20 s, by hand 40 s a checkpoint and 10 s to save it."""
    gate = {"cells": 3, "items": 120, "tokens": 12276, "verdicts": {"baseline": "PASS"}, "stages": {"sanity": 1.0}}
    return {
        "recipes": ["no-op", "rtn-int4-g64"],
        "complaints": [],
        "the gate, everything measured": {
            "seconds": 50.0,
            **gate,
            "correct": {"arc_easy": [6, 10], "hellaswag": [5, 10]},
        },
        "the gate, stopping at valid verdicts": {"seconds": 20.0, **gate},
        "peer": {
            "tokens": 4092,
            "probe": {4: 9.0, 8: 7.0},
            "batch size": 8,
            "checkpoints": [checkpoint(name, 40.0, 10.0) for name in ("baseline", "no-op", "rtn-int4-g64")],
        },
        **more,
    }


def test_the_default_recipes_can_all_be_saved_and_bring_both_controls():
    library = load_library()
    assert gate_peer.why_not_saved(gate.RECIPES) == []
    controls = {name for name in gate.RECIPES if library.recipes[name].role == "control"}
    assert controls == {"no-op", "prune-super-weights"}
    assert len(set(gate.RECIPES) - controls) == 8
    assert gate_peer.why_not_saved(["no-op", "smoothquant-channel-token", "nonsense"]) == [
        "no recipe 'nonsense'",
        "'smoothquant-channel-token' changes activations",
    ]


def test_the_tier_is_the_packaged_one_unless_numbers_are_given():
    nightly = load_library().tiers["nightly"]
    assert TierCard.model_validate(tomllib.loads(gate.toml(gate.tier_of(nightly)))) == nightly
    small = TierCard.model_validate(tomllib.loads(gate.toml(gate.tier_of(nightly, limit=20, windows=2))))
    assert {entry.limit for entry in small.tasks} == {20}
    assert {entry.windows for entry in small.perplexity} == {2}
    assert [entry.window for entry in small.perplexity] == [entry.window for entry in nightly.perplexity]


@pytest.mark.parametrize("name", ["arc_easy", "hellaswag", "piqa", "sciq"])
def test_lm_eval_reads_its_own_task_with_our_rows(tmp_path, name):
    from lm_eval.tasks._yaml_loader import load_yaml

    from superweight.evaluate import task_file

    own_file, path = task_file(load_library().tasks[name]), tmp_path / f"{name}.yaml"
    gate_peer._write_yaml(path, gate_peer.choice_task(name, own_file, tmp_path / "rows.jsonl"))
    own, ours = load_yaml(own_file), load_yaml(path)
    differing = {key for key in own.keys() | ours.keys() if own.get(key) != ours.get(key)}
    assert differing <= {
        *("task", "dataset_path", "dataset_name", "dataset_kwargs"),
        *("training_split", "validation_split", "test_split"),
    }
    assert ours["task"] == f"gate_{name}"
    assert ours["dataset_kwargs"] == {"data_files": {"validation": str(tmp_path / "rows.jsonl")}}
    assert (ours["validation_split"], ours["test_split"], ours["training_split"]) == ("validation", None, None)


class Letters:
    """A tokenizer of letters, but for a half (9), which is unreadable alone and comes back as three tokens."""

    def decode(self, tokens, **_):
        return "".join("���" if token == 9 else "abcdefgh"[token] for token in tokens)

    def encode(self, text, **_):
        return list(text)


def test_a_text_has_no_more_tokens_than_its_window_predicts():
    assert gate_peer.document(Letters(), [7, 0, 1, 2]) == "abc"
    assert gate_peer.document(Letters(), [7, 0, 1, 2, 9]) == "abc"


def test_the_command_line_asks_every_task_of_a_window_of_the_tiers_length(work):
    command = gate.command_line(work, Path("checkpoint"), "tasks", 10, 8)
    said = dict(zip(command[3::2], command[4::2], strict=True))
    assert command[:3] == ["-m", "lm_eval", "run"]
    assert said["--model_args"] == "pretrained=checkpoint,dtype=bfloat16,max_length=1024"
    assert said["--include_path"] == str(work.folder / "tasks")
    tasks = ["arc_easy", "hellaswag", "piqa", "sciq", "wiki-embedded", "web-embedded"]
    assert said["--tasks"] == ",".join(f"gate_{name}" for name in tasks)
    assert (said["--limit"], said["--batch_size"]) == ("10", "8")


def test_both_sides_get_one_environment_without_a_network():
    given = gate.environment({"PATH": "/bin", "PYTHONDONTWRITEBYTECODE": "1"}, Path("folder"), 3)
    assert given["PATH"] == "/bin"
    assert "PYTHONDONTWRITEBYTECODE" not in given
    assert given["HF_HUB_OFFLINE"] == given["HF_DATASETS_OFFLINE"] == "1"
    assert (given["OMP_NUM_THREADS"], given["TOKENIZERS_PARALLELISM"]) == ("3", "false")


def test_a_summary_counts_every_cell():
    found = gate.summary({"cells": [cell("baseline"), cell("no-op", items=5)]})
    assert (found["cells"], found["items"], found["tokens"]) == (2, 60, 2 * 2 * 2 * 1023)
    assert found["correct"]["piqa"] == [6, 10]
    assert found["stages"] == {"sanity": 2.0, "zero-shot": 10.0}


def test_complaints_of_the_gate(work):
    whole = [cell("baseline"), cell("no-op"), cell("rtn-int4-g64")]
    assert gate.complaints(work, {"cells": whole}, full=True) == []
    early = [*whole[:2], cell("rtn-int4-g64", items=5)]
    assert gate.complaints(work, {"cells": early}, full=False) == []
    assert len(gate.complaints(work, {"cells": early}, full=True)) == 4
    assert gate.complaints(work, {"cells": whole[:2]}, full=False) == ["rtn-int4-g64: no such cell"]
    failed = cell("rtn-int4-g64", failures=[{"stage": "sanity", "message": "no"}])
    assert gate.complaints(work, {"cells": [*whole[:2], failed]}, full=False) == ["rtn-int4-g64: sanity: no"]


def test_complaints_of_lm_eval(work):
    assert gate.peer_complaints(work, [{"recipe": "no-op", "asked": work.peer_tasks}]) == []
    fewer = {**work.peer_tasks, "gate_piqa": 9}
    assert gate.peer_complaints(work, [{"recipe": "no-op", "asked": fewer}]) == [
        "lm_eval no-op: gate_piqa: 9 of 10 asked"
    ]


def test_answers_are_counts():
    results = {
        "results": {"gate_piqa": {"acc,none": 0.7}, "gate_wiki-embedded": {"word_perplexity,none": 20.0}},
        "n-samples": {"gate_piqa": {"effective": 10}, "gate_wiki-embedded": {"effective": 2}},
    }
    assert gate.answers(results) == {
        "asked": {"gate_piqa": 10, "gate_wiki-embedded": 2},
        "correct": {"gate_piqa": [7, 10]},
    }


def test_ratios_are_of_whole_runs():
    lines = gate.rows(found())
    assert [line[0] for line in lines] == [gate.EVALUATING, gate.SAVING, gate.FULL, gate.STOPPING]
    assert lines[0][1:] == ["3", "120.0", "3", "60", "12,276", "2.40", "6.00"]
    assert lines[1][1:3] == ["6", "150.0"]
    assert lines[1][6:] == ["3.00", "7.50"]
    assert lines[3][6:] == ["0.40", "1.00"]
    assert len({len(gate.HEADERS), *map(len, lines)}) == 1
    assert len(gate.rows(found(peer=None))) == 2


def test_recipes_that_were_not_done_by_hand_count_as_the_mean_of_those_that_were():
    some = [checkpoint("baseline", 30.0, 5.0), checkpoint("no-op", 40.0, 6.0), checkpoint("rtn-int4-g64", 60.0, 8.0)]
    assert gate.in_all(some, "seconds", 10) == 30 + 10 * 50
    assert gate.in_all(some, "saving", 10) == 5 + 10 * 7
    assert gate.in_all(some[:1], "seconds", 10) == 11 * 30
    peer = found()["peer"]
    peer["checkpoints"] = peer["checkpoints"][:2]
    assert any("1 of 2 recipes were measured" in note for note in gate.notes(found(peer=peer)))


def test_notes_say_what_went_wrong_and_where_baselines_differ():
    said = gate.notes(found(complaints=["no-op: no such cell"]))
    assert said[0] == "COMPLAINT: no-op: no such cell"
    assert any("hellaswag: by 2 of 10 items" in note for note in said)
    assert any("batch size 8 (short runs: 4: 9.0 s, 8: 7.0 s)" in note for note in said)


@pytest.mark.real
def test_the_texts_of_the_tiers_windows_are_what_lm_eval_is_given(work):
    (work.folder / "cards" / "tiers").mkdir(parents=True)
    (work.folder / "cards" / "tiers" / "nightly.toml").write_text(gate.toml(work.tier))
    printed = helper("tasks", work.folder / "cards", work.folder)
    assert 0.99 * 4 * 1023 <= printed["tokens"] <= 4 * 1023
    names = {name.removeprefix("gate_") for name in work.peer_tasks}
    assert {path.stem for path in (work.folder / "tasks").iterdir()} == names
    assert {path.stem for path in (work.folder / "probe").iterdir()} == names
    for place, documents in (("tasks", 2), ("probe", math.ceil(2 / gate_peer.PROBE_SHARE))):
        rows = (work.folder / "rows" / f"wiki-embedded-{place}.jsonl").read_text().splitlines()
        assert len(rows) == documents


@pytest.mark.real
def test_a_saved_checkpoint_is_the_recipes_model(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    helper("save", "prune-super-weights", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    weights = [layer.mlp.down_proj.weight for layer in model.model.layers]
    assert weights[0].dtype == torch.bfloat16
    for known in load_library().models["smollm2-135m-instruct"].super_weights:
        assert weights[known.layer][known.row, known.column] == 0


@pytest.mark.real
@pytest.mark.slow
def test_a_quick_run(tmp_path):
    command = [sys.executable, BENCHMARKS / "gate.py", "--quick", "-o", tmp_path / "found.json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["the gate, everything measured"]["items"] == 3 * 4 * 20
    assert len(found["peer"]["checkpoints"]) == 3
    assert sum(line.startswith("| ") for line in ended.stdout.splitlines()) == 5


def helper(*arguments):
    command = [sys.executable, BENCHMARKS / "gate_peer.py", *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
