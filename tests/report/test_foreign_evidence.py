"""Evidence with kinds that no package at hand knows is read and shown all the same."""

from test_page import gate, run_of

from superweight.report import render
from superweight.runs.document import to_json
from superweight.runs.read import read_run
from support import by_hand


def test_kinds_of_a_package_that_is_not_here_are_shown(tmp_path):
    alien = gate("worst-paragraph:wiki", "REGRESSION").model_copy(update={"kind": "worst-paragraph"})
    cell = by_hand.cell("alien", recipe_parameters={"kind": "alien", "strength": 3})
    written = run_of((by_hand.baseline(), [gate(value=20.0, baseline=None, difference=None)]), (cell, [alien]))
    (tmp_path / "evidence.json").write_text(to_json(written))
    document = read_run(tmp_path)
    assert (document.verdict, document.doubts) == ("REGRESSION", [])
    render(tmp_path, document)
    for name in ("report.html", "summary.md"):
        assert "worst-paragraph:wiki" in (tmp_path / name).read_text()
