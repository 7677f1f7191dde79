"""The table of rules: every id once, each with a reason, and told in the documentation."""

from pathlib import Path

from superweight.artefact.lint import RULES

PAGE = Path(__file__).parents[3] / "docs" / "artefacts.md"


def test_ids_are_unique():
    names = [rule.id for rule in RULES]
    assert len(set(names)) == len(names)


def test_every_rule_is_documented_as_it_is():
    page = PAGE.read_text()
    for rule in RULES:
        assert f"| `{rule.id}` | {rule.severity} | {rule.reason} |" in page
    assert page.count("| error |") + page.count("| warning |") == len(RULES)
