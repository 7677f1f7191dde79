"""A cell that is not run in memory is measured, judged and reported by the same suites."""

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
RECORDED = """
id = "recorded"
title = "INT8, written down"
role = "candidate"
[method]
kind = "recorded"
bits = 8
granularity = "channel"
z = 12.0
"""
FROM_TABLE = """
id = "served"
title = "INT8 from a table"
role = "candidate"
[method]
kind = "from-table"
"""


@pytest.fixture
def tables(project, monkeypatch):
    """The project, with one recipe that is written down and one that is answered from what was written."""
    recipes = project.root / "cards" / "recipes"
    recipes.mkdir()
    (recipes / "recorded.toml").write_text(RECORDED)
    (recipes / "served.toml").write_text(FROM_TABLE)
    tier = project.root / "cards" / "tiers" / "smoke.toml"
    head, _, rest = tier.read_text().partition('"rtn-int4-g64"')
    tier.write_text(f'{head}"recorded", "served"]{rest.partition("]")[2]}')
    conftest = project.root / "conftest.py"
    conftest.write_text(conftest.read_text() + "\nimport support.table_kinds  # noqa: E402, F401\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    return project


def without_runner(cell):
    """What must not depend on who runs the model."""
    gates = {
        gate["gate"]: {name: gate[name] for name in ("verdict", "value", "baseline", "interval", "n", "p_pass")}
        for gate in cell["gates"]
        if gate["kind"] not in ("divergence", "agreement")
    }
    figures = {name: (text["value"], text["nll"], text["index"]) for name, text in cell["perplexity"].items()}
    tasks = {name: (task["metrics"], task["n"]) for name, task in cell["zero_shot"].items()}
    return gates, figures, tasks, cell["super_weights"], cell["sanity"], cell["size"], cell["verdict"]


def test_a_runner_that_answers_from_a_table_gets_the_verdicts_of_the_model_in_memory(tables):
    run = tables.gate("--superweight-stopping=off")
    assert run.ret == 0, run.stdout.str()
    recorded, served = tables.cell("recorded"), tables.cell("served")
    assert recorded["verdict"] == "PASS"
    assert without_runner(served) == without_runner(recorded)
    assert recorded["perplexity"]["chain"]["kl"]
    assert served["perplexity"]["chain"]["kl"] == []
    assert served["checkpoint"]["cannot"] == {"divergence": "the table holds log-likelihoods and no distributions"}
    assert recorded["key"] != served["key"]
    page = (tables.root / "reports" / "latest" / "report.html").read_text()
    summary = (tables.root / "reports" / "latest" / "summary.md").read_text()
    for text in (page, summary, run.stdout.str()):
        assert "the table holds log-likelihoods and no distributions" in text


def test_what_a_runner_cannot_tell_is_never_a_pass(tables):
    runner = tables.root / "silent.py"
    runner.write_text(
        "from superweight.forward.runner import CannotTell\n"
        "from support.table_runner import TableRunner\n"
        "class Silent(TableRunner):\n"
        "    def stored(self, where):\n"
        "        return CannotTell('the engine shows no weights')\n"
    )
    conftest = tables.root / "conftest.py"
    conftest.write_text(conftest.read_text() + "support.table_kinds.FromTable.runner = 'silent:Silent'\n")
    run = tables.gate("-k", "super_weights or sanity or perplexity", "-p", "no:xdist")
    assert run.ret == 1, run.stdout.str()
    served = tables.cell("served")
    assert served["verdict"] == "INFRA"
    failure = next(failure for failure in served["failures"] if failure["stage"] == "sanity")
    assert failure["reason"] == "cannot-tell"
    assert "the engine shows no weights" in failure["message"]
    assert tables.cell("recorded")["verdict"] == "PASS"
