"""A model in which no single weight matters is gated to a decision all the same."""

import json

import pytest

from support.tiny import TAUGHT, tiny_text, trained

MODEL = """
id = "even"
title = "Even"
[source]
kind = "directory"
path = "{path}"
"""
REPLACED = '"rtn-int4-g64", "clip-restore-int8-channel", "clip-restore-int4-g64"'
RECIPES = '"scale-super-weights-x1.5", "prune-super-weights-keep-activation", "clip-restore-int8-channel"'


@pytest.fixture
def even(project):
    """The project, of a trained model without super weights and its own language."""
    loaded, root = trained(), project.root
    for part in (loaded.model, loaded.tokenizer):
        part.save_pretrained(root / "even")
    project.models("even")
    (root / "cards" / "models" / "even.toml").write_text(MODEL.format(path=root / "even"))
    words = [f"w{token - 4}" for token in tiny_text(64 * 20, seed=3, follows=TAUGHT).tolist()]
    (root / "cards" / "corpora" / "chain.txt").write_text(" ".join(words))
    tier = root / "cards" / "tiers" / "smoke.toml"
    tier.write_text(
        tier.read_text().replace(REPLACED, RECIPES).partition("[[tasks]]")[0].replace("[[perp", "tasks = []\n[[perp")
    )
    return project


def test_another_control_vouches_and_none_found_is_a_finding(even):
    found = even.gate("--superweight-store", "none")
    assert found.ret == 0, found.stdout.str()
    verdicts = {cell["recipe"]: cell["verdict"] for cell in even.evidence["cells"]}
    assert even.evidence["verdict"] == "PASS"
    assert verdicts == {
        "baseline": "PASS",
        "no-op": "PASS",
        "prune-super-weights": "REGRESSION",
        "clip-restore-int8-channel": "PASS",
        "scale-super-weights-x1.5": "INCONCLUSIVE",
        "prune-super-weights-keep-activation": "INCONCLUSIVE",
    }
    control = even.cell("prune-super-weights", "even")
    assert control["stands_in"] == "prune-super-weights"
    assert control["recipe_parameters"] == {"kind": "roll-channels"}
    assert len(control["sanity"]["changed"]) == 2 * 7
    text = found.stdout.str()
    assert (
        "even: no super weights found, so there are none to lose; prune-super-weights did roll-channels instead" in text
    )
    page = (even.root / "reports" / "latest" / "report.html").read_text()
    assert "no super weights found" in page
    gates = {gate["gate"]: gate for gate in even.cell("clip-restore-int8-channel", "even")["gates"]}
    assert gates["super-weights"]["message"].startswith("no super weight is known in this model")
    gates = {gate["gate"]: gate for gate in even.cell("baseline", "even")["gates"]}
    assert gates["detection"]["message"].startswith("no super weight found")


def test_a_control_without_a_stand_in_vouches_for_nothing(even):
    cards = even.root / "cards"
    (cards / "recipes").mkdir()
    own = 'id = "mine"\ntitle = "Mine"\nrole = "control"\nexpects = "REGRESSION"\n[method]\nkind = "prune-super-weights"\n'
    (cards / "recipes" / "mine.toml").write_text(own)
    tier = cards / "tiers" / "smoke.toml"
    tier.write_text(
        tier.read_text().replace('"prune-super-weights", ', '"mine", ').replace(RECIPES, '"rtn-int8-channel"')
    )
    found = even.gate("--superweight-store", "none")
    assert found.ret == 1
    assert even.evidence["verdict"] == "INFRA"
    assert "stand_in" in found.stdout.str()
    assert json.dumps(even.evidence["reasons"]).count("nothing vouches") == 1
