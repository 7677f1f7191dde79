"""The history of runs: appending, concurrency, damage, and drift since the release."""

import json
import math
import multiprocessing

import pytest

from superweight.errors import InfraError
from superweight.evidence import Noise
from superweight.report.comparison_text import look_back_lines
from superweight.runs.document import LookBack, strict_json
from superweight.runs.drift_alarms import drift_alarms
from superweight.runs.history import append_run, last_snapshot, read_history, runs
from superweight.runs.look_back import look_back
from superweight.runs.read import snapshots_of
from superweight.runs.release_baselines import promote, read_release_baseline
from support.by_hand import BASE, baseline, cell, document, gates, snapshot


def at(day):
    return f"2026-03-{day:02d}T01:00:00+00:00"


def run(day, value=20.0, tier="smoke", **more):
    """A run of one candidate whose perplexity is `value`, where the uncompressed model has 20."""
    cells = [baseline(), cell("rtn", nll=BASE)]
    return document(*cells, started=at(day), tier=tier, figures={"rtn": (20.0, value)}, **more)


def append(store, one, releases=None):
    return append_run(store, one, snapshots_of(one), releases)


def test_a_run_comes_back_with_its_figures(tmp_path):
    append(tmp_path / "store", run(1, 21.0, failed=["rtn"]))
    (entry,) = runs(tmp_path / "store")
    assert (entry.started, entry.tier, entry.commit, entry.verdict, entry.whole) == (
        at(1),
        "smoke",
        "abc",
        "REGRESSION",
        True,
    )
    assert entry.roles == {"m/baseline": "baseline", "m/rtn": "candidate"}
    assert entry.verdicts == {"m/baseline": "PASS", "m/rtn": "REGRESSION"}
    figure = entry.figures["m/rtn"]["perplexity:wiki"]
    assert (figure.value, figure.baseline, figure.n, figure.planned) == (21.0, 20.0, 8, 8)
    assert figure.difference == pytest.approx(0.05)
    assert not entry.released
    assert not append_run(tmp_path / "other", run(1, left_out=["m/rtn zero-shot:piqa"]), []).whole


def test_a_broken_model_has_a_place_in_history(tmp_path):
    append(tmp_path, run(1, math.inf))
    assert read_history(tmp_path).notes == []
    assert runs(tmp_path)[0].figures["m/rtn"]["perplexity:wiki"].value == math.inf


def test_runs_are_in_the_order_of_time_and_never_rewritten(tmp_path):
    first = append(tmp_path, run(3))
    before = (tmp_path / "history.jsonl").read_bytes()
    second = append(tmp_path, run(1))
    assert [entry.id for entry in runs(tmp_path)] == [second.id, first.id]
    assert (tmp_path / "history.jsonl").read_bytes().startswith(before)


def test_no_history_is_an_empty_one(tmp_path):
    assert read_history(tmp_path / "nowhere") == ([], [])
    assert last_snapshot(tmp_path / "nowhere", "m", "smoke") is None


def test_a_line_that_was_not_finished_costs_itself_only(tmp_path):
    for day in (1, 2):
        append(tmp_path, run(day))
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    history = read_history(tmp_path)
    assert [entry.started for entry in history.runs] == [at(1)]
    assert "history.jsonl:2: the last line was not finished" in history.notes[0]
    append(tmp_path, run(3))
    history = read_history(tmp_path)
    assert [entry.started for entry in history.runs] == [at(1), at(3)]
    assert len(history.notes) == 1


def test_a_line_that_only_lacks_its_end_is_kept(tmp_path):
    append(tmp_path, run(1))
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    append(tmp_path, run(2))
    assert [entry.started for entry in runs(tmp_path)] == [at(1), at(2)]
    assert read_history(tmp_path).notes == []


def other_version(line):
    from superweight.runs.history import _line

    return _line(json.loads(line)["record"] | {"schema_version": "2.0"}).rstrip(b"\n")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda line: line.replace(b'"abc"', b'"abd"'), "checksum"),
        (lambda line: b"hello", "not a line of this history"),
        (lambda line: b"[1, 2]", "not a line of this history"),
        (lambda line: b'{"crc": "0", "record": 1}', "checksum"),
        (lambda line: b"\xff\xfe\x00", "not a line of this history"),
        (other_version, "version 2.0"),
    ],
)
def test_lines_of_others_are_left_out_with_a_note(tmp_path, spoil, words):
    for day in (1, 2, 3):
        append(tmp_path, run(day))
    path = tmp_path / "history.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], spoil(lines[1]), lines[2], b""]))
    history = read_history(tmp_path)
    assert [entry.started for entry in history.runs] == [at(1), at(3)]
    assert len(history.notes) == 1
    assert "history.jsonl:2:" in history.notes[0]
    assert words in history.notes[0]


def test_a_history_that_cannot_be_used_says_so(tmp_path):
    (tmp_path / "history.jsonl").mkdir()
    with pytest.raises(InfraError, match=r"history\.jsonl: cannot be read"):
        read_history(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InfraError, match="could not be"):
        append(tmp_path / "file", run(1))


def _append_many(store, days):
    for day in days:
        append(store, run(day))


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    shares = [range(1, 8), range(8, 15), range(15, 22)]
    processes = [context.Process(target=_append_many, args=(tmp_path, days)) for days in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    history = read_history(tmp_path)
    assert [entry.started for entry in history.runs] == [at(day) for day in range(1, 22)]
    assert history.notes == []


def test_the_last_snapshot_is_of_the_model_the_tier_and_the_time(tmp_path):
    for day, tier in ((1, "smoke"), (2, "nightly"), (3, "smoke"), (4, "smoke")):
        append(tmp_path, run(day, tier=tier))
    assert last_snapshot(tmp_path, "m", "smoke").taken == at(4)
    assert last_snapshot(tmp_path, "m", "smoke", before=at(4)).taken == at(3)
    assert last_snapshot(tmp_path, "m", "nightly", before=at(4)).taken == at(2)
    assert last_snapshot(tmp_path, "m", "smoke", before="2026-03-03T02:00:00+01:00").taken == at(1)
    assert last_snapshot(tmp_path, "other", "smoke") is None
    newest = runs(tmp_path)[-1]
    (tmp_path / newest.snapshots["m"]).write_text("{")
    assert last_snapshot(tmp_path, "m", "smoke").taken == at(3)


def test_released_runs_are_known_by_those_that_were_held_against_them(tmp_path):
    append(tmp_path, run(1))
    append(tmp_path, run(2), {"m": at(1)})
    append(tmp_path, run(3), {"m": at(3)})
    append(tmp_path, run(4, tier="nightly"), {"m": at(2)})
    assert [entry.released for entry in runs(tmp_path)] == [True, False, True, False]


def creeping(store, values, first=1):
    entries = [append(store, run(day, value)) for day, value in enumerate(values, first)]
    latest = snapshot(baseline(), cell("rtn", nll=BASE), taken=entries[-1].started)
    return runs(store), latest


def test_a_candidate_that_creeps_away_from_the_uncompressed_model_raises_an_alarm(tmp_path):
    entries, latest = creeping(tmp_path, [20.0, 20.4, 20.8, 21.3])
    (alarm,) = drift_alarms(entries, latest, None, gates)
    assert (alarm.kind, alarm.model, alarm.recipe, alarm.gate, alarm.runs) == (
        "drift",
        "m",
        "rtn",
        "perplexity:wiki",
        4,
    )
    assert alarm.message.startswith("m/rtn perplexity:wiki relative to the uncompressed model: 1 (2026-03-01) → 1.065")
    assert drift_alarms(entries[:2], latest, None, gates) == []


def test_what_happened_before_the_release_was_accepted(tmp_path):
    entries, latest = creeping(tmp_path, [20.0, 20.4, 20.8, 21.3])
    release = snapshot(baseline(), cell("rtn", nll=[b + 0.0500 for b in BASE]), taken=at(3))
    assert drift_alarms(entries, latest, release, gates) == []


def test_the_release_is_where_drift_begins(tmp_path):
    """The release lies on another machine's history; its figure is that of its snapshot: 20 · exp(0) against 20."""
    entries, latest = creeping(tmp_path, [20.4, 20.8, 21.3], first=5)
    assert drift_alarms(entries, latest, None, gates) == []
    release = snapshot(baseline(), cell("rtn", nll=BASE), taken=at(1))
    (alarm,) = drift_alarms(entries, latest, release, gates)
    assert (alarm.kind, alarm.runs, alarm.since) == ("drift", 4, at(1))
    assert alarm.first == 1.0


def test_other_tiers_references_and_failures_are_left_out(tmp_path):
    entries, latest = creeping(tmp_path, [20.0, 20.4, 20.8, 21.3])
    nightly = latest.model_copy(update={"tier": "nightly"})
    assert drift_alarms(entries, nightly, None, gates) == []
    reference = snapshot(baseline(), cell("rtn", "reference", BASE), taken=latest.taken)
    assert drift_alarms(entries, reference, None, gates) == []
    entries[-1].figures["m/rtn"]["perplexity:wiki"].verdict = "INFRA"
    assert drift_alarms(entries, latest, None, gates) == []


def test_measured_noise_is_taken_into_account(tmp_path):
    entries, latest = creeping(tmp_path, [20.0, 20.4, 20.8, 21.3])
    repeat = Noise(variation="kernel", n=4, value=20.0, reference=20.0, mean=0.0, sd=0.06, changed=4)
    noisy = snapshot(baseline(noise={"perplexity:wiki": repeat}), cell("rtn", nll=BASE), taken=latest.taken)
    noisy.noise["perplexity:wiki"] = repeat
    latest.noise["perplexity:wiki"] = repeat
    assert drift_alarms(entries, latest, None, gates) == []  # 0.06 / 2 · 3 · 1.41 = 0.127 nats


def test_the_uncompressed_model_is_watched_by_itself_on_as_many_windows(tmp_path):
    for day, value in enumerate([20.0, 20.4, 20.8, 21.3], 1):
        one = document(baseline(), started=at(day), figures={"baseline": (0.0, value)} if value else None)
        append(tmp_path, one)
    latest = snapshot(baseline(), taken=at(4))
    (alarm,) = drift_alarms(runs(tmp_path), latest, None, gates)
    assert (alarm.recipe, alarm.first, alarm.last) == ("baseline", 20.0, 21.3)
    entries = runs(tmp_path)
    entries[0].figures["m/baseline"]["perplexity:wiki"].n = 4
    assert drift_alarms(entries, latest, None, gates) == []


def test_looking_back_keeps_the_first_run_and_compares_the_next(tmp_path):
    store, baselines = tmp_path / "store", tmp_path / "baselines"
    one = run(1)
    seen = look_back(one, snapshots_of(one), gates, baselines=baselines, store=store)
    assert "first whole run in the smoke tier" in seen.baseline
    assert (seen.against_release, seen.alarms, seen.notes) == (None, [], [])
    two = run(2)
    seen = look_back(two, snapshots_of(two), gates, baselines=baselines, store=store)
    assert seen.baseline == ""
    assert seen.against_release.verdict == "PASS"
    assert read_release_baseline(baselines, "smoke", "m").taken == at(1)
    assert [entry.released for entry in runs(store)] == [True, False]


def test_looking_back_tells_of_drift_since_the_release(tmp_path):
    store, baselines = tmp_path / "store", tmp_path / "baselines"
    promote(baselines, snapshots_of(run(1))[0])
    for day, value in enumerate([20.4, 20.8, 21.3], 2):
        one = run(day, value)
        seen = look_back(one, snapshots_of(one), gates, baselines=baselines, store=store)
    assert [alarm.kind for alarm in seen.alarms] == ["drift"]


def test_a_terminal_is_told_what_matters(tmp_path):
    store, baselines = tmp_path / "store", tmp_path / "baselines"
    promote(baselines, snapshots_of(run(1))[0])
    cells = [baseline(), cell("rtn", nll=[b + 1 for b in BASE]), cell("ref", "reference", [b + 1 for b in BASE])]
    one = document(*cells, started=at(2), figures={"rtn": (20.0, 54.0)})
    seen = look_back(one, snapshots_of(one), gates, baselines=baselines, store=store)
    first, second, third = look_back_lines(seen)
    assert first == "against the release baseline: ✗ REGRESSION: the later run is worse by more than is accepted"
    assert second.startswith("  ✗ rtn: REGRESSION, perplexity on wiki 20.98 → 57.04: +171.83 %")
    assert third.startswith("step since the release: m/rtn perplexity:wiki relative to the uncompressed model: 1 (")
    assert LookBack.model_validate_json(strict_json(seen.model_dump(mode="python"))) == seen
    assert look_back_lines(LookBack()) == []
    assert look_back_lines(LookBack(baseline="kept", notes=["no room"])) == ["kept", "note: no room"]


def test_looking_back_survives_what_it_cannot_read_or_write(tmp_path):
    store, baselines = tmp_path / "store", tmp_path / "baselines"
    (baselines / "smoke").mkdir(parents=True)
    (baselines / "smoke" / "m.json").write_text("{")
    store.write_text("a file")
    one = run(1)
    seen = look_back(one, snapshots_of(one), gates, baselines=baselines, store=store)
    assert (seen.baseline, seen.against_release) == ("", None)
    assert len(seen.notes) == 3  # the baseline, the history read and the history written
    assert (baselines / "smoke" / "m.json").read_text() == "{"
    assert look_back(one, snapshots_of(one), gates, baselines=tmp_path / "b2").notes == []
