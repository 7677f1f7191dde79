"""Release baselines: when a run becomes one, and that nothing else moves it."""

import pytest

from superweight.errors import InfraError
from superweight.evidence import Failure
from superweight.runs.read import snapshots_of
from superweight.runs.release_baselines import (
    first_release_baseline,
    objections,
    promote,
    read_release_baseline,
    release_baseline_path,
)
from support.by_hand import BASE, baseline, cell, document, snapshot


def good(**more):
    return document(baseline(scores=[1.0] * 8), cell("rtn", nll=BASE, scores=[1.0] * 8), **more)


def first(directory, one):
    return first_release_baseline(directory, one, snapshots_of(one))


def test_the_first_whole_run_becomes_the_baseline_and_the_next_does_not(tmp_path):
    said = first(tmp_path, good())
    assert said.startswith("m: first whole run in the smoke tier; kept as release baseline in ")
    kept = read_release_baseline(tmp_path, "smoke", "m")
    assert (kept.commit, bool(kept.promoted)) == ("abc", True)
    text = release_baseline_path(tmp_path, "smoke", "m").read_text()
    assert first(tmp_path, good(started="2026-02-01T00:00:00+00:00")) == ""
    assert release_baseline_path(tmp_path, "smoke", "m").read_text() == text
    assert "kept as release baseline" in first(tmp_path, good(tier="nightly"))


def infra():
    failure = Failure(stage="perplexity:wiki", reason="offline", message="no network")
    one = good()
    one.verdict, one.reasons = "INFRA", [f"m/rtn: not measured ({failure.reason}): {failure.message}"]
    return one


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (good(failed=["rtn"]), "the run is REGRESSION"),
        (infra(), "the run is INFRA"),
        (good(left_out=["m/rtn zero-shot:sciq", "m/rtn sanity"]), "left out: m/rtn zero-shot:sciq and 1 more"),
    ],
)
def test_a_run_that_is_not_whole_and_good_is_no_baseline(tmp_path, one, words):
    said = first(tmp_path, one)
    assert said.startswith("m: no release baseline in the smoke tier yet")
    assert words in said
    assert list(tmp_path.iterdir()) == []
    assert "made up" not in said, "the reasons stand above"


def test_promoting_by_hand_is_told_the_reason():
    assert str(objections(infra(), snapshots_of(infra()))[0]).startswith(
        "the run is INFRA: m/rtn: not measured (offline)"
    )


def test_an_undecided_run_is_promoted_by_hand_only(tmp_path):
    one = good()
    one.verdict = "INCONCLUSIVE"
    assert "the run is INCONCLUSIVE; `superweight baseline RUN` promotes it" in first(tmp_path, one)
    assert read_release_baseline(tmp_path, "smoke", "m") is None
    assert objections(one, snapshots_of(one)) == []


def test_a_run_without_its_items_is_no_baseline():
    one = good()
    for each in one.cells:
        each.zero_shot["piqa"].items = []
    found = [str(each) for each in objections(one, snapshots_of(one))]
    assert found == ["items are missing: m/baseline piqa", "items are missing: m/rtn piqa"]


def test_every_model_of_a_run_gets_its_own(tmp_path):
    other = [cell("baseline", "baseline", BASE, model="n"), cell("rtn", nll=BASE, model="n")]
    promote(tmp_path, snapshot(baseline()))
    one = document(baseline(), cell("rtn", nll=BASE), *other)
    assert first(tmp_path, one).startswith("n: first whole run")
    assert read_release_baseline(tmp_path, "smoke", "n").model == "n"


def test_promoting_writes_when_and_reads_back(tmp_path):
    path = promote(tmp_path, snapshot(baseline()), when="2026-05-01T00:00:00+00:00")
    assert path == tmp_path / "smoke" / "m.json"
    assert read_release_baseline(tmp_path, "smoke", "m").promoted == "2026-05-01T00:00:00+00:00"
    assert read_release_baseline(tmp_path, "nightly", "m") is None


def test_a_baseline_of_another_model_is_not_taken_for_this_ones(tmp_path):
    path = promote(tmp_path, snapshot(baseline()))
    path.rename(path.with_name("n.json"))
    with pytest.raises(InfraError, match=r"expected the baseline of n in the smoke tier, found m"):
        read_release_baseline(tmp_path, "smoke", "n")


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a/b", ".hidden", "A"])
def test_a_name_that_is_no_id_never_becomes_a_path(tmp_path, name):
    with pytest.raises(InfraError, match="is no id"):
        release_baseline_path(tmp_path, "smoke", name)
    with pytest.raises(InfraError, match="is no id"):
        release_baseline_path(tmp_path, name, "m")
