"""The gate kind of docs/cards.md, which another package adds: a row, a judge, an entry point, and a card."""

import os
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "cards.md"


def example(language, words):
    """The block of docs/cards.md in which these words are."""
    blocks = DOCS.read_text(encoding="utf-8").split(f"```{language}\n")[1:]
    return next(text for text in (block.split("```")[0] for block in blocks) if words in text)


@pytest.fixture
def installed(project, monkeypatch):
    """The project where the package is installed, as far as Python can tell; its gate's card accepts `margin`."""
    site = project.root / "site"
    info = site / "worst_window-1.0.dist-info"
    info.mkdir(parents=True)
    entry = example("toml", "worst-window = ").splitlines()[1].replace('"', "")
    (site / "worst_window.py").write_text(example("python", "# worst_window.py"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: worst-window\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[superweight.kinds]\n{entry}\n")
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path.rstrip(os.pathsep))

    card = example("toml", 'kind = "worst-window"')

    def accepting(margin):
        (project.root / "cards" / "gates" / "worst.toml").write_text(card.replace("margin = 0.5", f"margin = {margin}"))
        return project

    return accepting


def test_another_packages_kind_is_gated_by_and_shown_everywhere(installed):
    """What it finds is in the evidence, the table, the page and the summary, in its own unit; it fails and passes."""
    project = installed(0.001)
    result = project.gate("-k", "baseline or no-op or clip-restore-int4")
    out = result.stdout.str()
    reports = project.root / "reports" / "latest"
    summary, page = ((reports / name).read_text() for name in ("summary.md", "report.html"))

    def gate(recipe):
        return next(one for one in project.cell(recipe)["gates"] if one["gate"] == "worst-window:chain")

    before, after = (project.cell(recipe)["perplexity"]["chain"] for recipe in ("baseline", "clip-restore-int4-g64"))
    known = dict(zip(before["index"], before["nll"], strict=True))
    losses = [nll - known[window] for window, nll in zip(after["index"], after["nll"], strict=True)]
    failed = gate("clip-restore-int4-g64")
    assert failed["value"] == pytest.approx(max(losses))
    assert (failed["kind"], failed["verdict"], failed["margin"], failed["n"]) == (
        "worst-window", "REGRESSION", 0.001, len(losses),
    )  # fmt: skip
    assert gate("no-op")["verdict"] == "PASS"
    assert gate("no-op")["value"] == 0
    assert project.cell("clip-restore-int4-g64")["verdict"] == "REGRESSION"
    assert result.ret == 1
    shown = f"{max(losses):+.3g} nats a token"
    for text in (out, summary, page):
        assert shown in text
        assert "worst-window" in text
    assert "+0.001 nats a token" in out
    assert "windows that lost most:" in failed["message"]


def test_a_package_whose_kind_cannot_be_imported_is_named(installed):
    project = installed(0.01)
    (project.root / "site" / "worst_window.py").write_text("import a_module_that_is_nowhere\n")
    result = project.gate("--collect-only", "-q")
    said = result.stdout.str() + result.stderr.str()
    assert result.ret != 0
    for word in ("worst-window = worst_window", "superweight.kinds", "worst-window 1.0", "a_module_that_is_nowhere"):
        assert word in said
