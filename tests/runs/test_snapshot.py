"""Snapshots: what they keep, how small they are, and what reading a damaged one says."""

import json
import math
import random

import pytest

from superweight.errors import InfraError
from superweight.evidence import CellEvidence, Failure, Noise
from superweight.evidence.compact import compact_json
from superweight.evidence.seal import sealed
from superweight.runs.snapshot import PerplexityFigure, read_snapshot, snapshot_text, write_snapshot
from support.by_hand import BASE, baseline, cell, perplexity, snapshot, weight, zero_shot


def noise():
    return Noise(variation="another kernel", n=8, value=20.0, reference=20.0, mean=0.0, sd=0.001, changed=2)


@pytest.fixture
def taken():
    stopped = zero_shot([1.0, 0.0, 1.0], first=2, planned=6)
    stopped.items.reverse()  # visited in another order
    return snapshot(
        baseline(scores=[1.0, 1.0, 0.0, 1.0, 0.0, 1.0], noise={"perplexity:wiki": noise()}),
        cell(
            "rtn", nll=BASE, zero_shot={"piqa": stopped}, super_weights=[weight(9), weight(2, survived=False)], key="k"
        ),
        cell("awq", "reference", failures=[Failure(stage="perplexity:wiki", reason="offline", message="no network")]),
        cell("other", model="another"),
        commit="abc",
        command="pytest suites/",
        environment={"torch": "2", "device": "cpu"},
    )


def test_a_snapshot_comes_back_as_it_was(taken, tmp_path):
    path = tmp_path / "smoke" / "m.json"
    write_snapshot(path, taken)
    assert read_snapshot(path) == taken
    assert snapshot_text(read_snapshot(path)) == path.read_text()


def test_it_keeps_what_a_comparison_needs_of_one_model(taken):
    assert list(taken.cells) == ["baseline", "awq", "rtn"]
    assert (taken.checkpoint.content_hash, taken.checkpoint.dtype) == ("c" * 64, "float32")
    assert taken.noise["perplexity:wiki"].sd == 0.001
    assert taken.cells["awq"].failures == {"perplexity:wiki": "offline"}
    rtn = taken.cells["rtn"]
    assert [(w.row, w.survived) for w in rtn.super_weights] == [(2, False), (9, True)]
    assert (rtn.bits_per_weight, rtn.model_bits_per_weight, rtn.key, rtn.promises) == (4.5, 8.0, "k", True)
    assert taken.baseline is taken.cells["baseline"]


def test_answers_stand_in_the_order_of_the_task_whatever_was_asked_and_when(taken):
    assert [item.split(":")[0] for item in taken.items["piqa"]] == ["0", "1", "2", "3", "4", "5"]
    assert taken.cells["baseline"].zero_shot["piqa"].answers == ["110101"]
    assert taken.cells["rtn"].zero_shot["piqa"].answers == ["..101."]
    assert (taken.cells["rtn"].zero_shot["piqa"].n, taken.cells["rtn"].zero_shot["piqa"].planned) == (3, 6)
    scores = taken.scores("rtn", "piqa")
    assert {item.split(":")[0]: score for item, score in scores.items()} == {"2": 1.0, "3": 0.0, "4": 1.0}


def test_scores_that_are_no_answers_keep_every_digit():
    one = snapshot(baseline(), cell("rtn", zero_shot={"t": zero_shot([0.1, 1 / 3, 0.25], metric="brier")}))
    figure = one.cells["rtn"].zero_shot["t"]
    assert (figure.answers, figure.scores) == ([], [0.1, 1 / 3, 0.25])
    assert list(one.scores("rtn", "t").values()) == [0.1, 1 / 3, 0.25]


def test_windows_stand_in_the_order_of_the_text():
    figure = PerplexityFigure.of(perplexity([3.0, 1.0, 2.0], index=[7, 0, 4], planned=8, kl=[0.1, 0.2, 0.6]))
    assert (figure.index, figure.nll) == ([0, 4, 7], [1.0, 2.0, 3.0])
    assert figure.by_window() == {0: 1.0, 4: 2.0, 7: 3.0}
    assert figure.kl == pytest.approx(0.3)
    whole = PerplexityFigure.of(perplexity([3.0, 1.0, 2.0], index=[2, 0, 1]))
    assert (whole.index, whole.nll) == ([], [1.0, 2.0, 3.0])


def test_floats_are_not_rounded(tmp_path):
    odd = [math.pi, 1 / 3, 0.1 + 0.2, math.inf]
    write_snapshot(tmp_path / "m.json", snapshot(baseline(odd)))
    again = read_snapshot(tmp_path / "m.json").cells["baseline"].perplexity["wiki"]
    assert again.nll == odd
    assert again.value == math.inf


def test_the_file_is_strict_json_with_short_lines_in_a_fixed_order(taken):
    text = snapshot_text(taken)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert max(map(len, text.splitlines())) <= 120
    one = snapshot(cell("b", nll=BASE), baseline(), cell("a", nll=BASE), environment={"x": "1", "y": "2"})
    other = snapshot(cell("a", nll=BASE), cell("b", nll=BASE), baseline(), environment={"y": "2", "x": "1"})
    assert snapshot_text(one) == snapshot_text(other)


def test_one_answer_more_changes_one_line_of_answers():
    def text(first):
        return snapshot_text(snapshot(baseline(scores=[first, *[1.0] * 299]))).splitlines()

    one, other = text(1.0), text(0.0)
    changed = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    assert len(changed) == 3  # the row of a hundred answers, the accuracy, and the digest
    assert {len(a.strip()) for a, _ in changed if a.strip().startswith('"1')} == {103}


def test_a_nightly_snapshot_is_small():
    """34 recipes, two corpora of 24 windows, four tasks of 250 items: under 200 kB."""
    rng = random.Random(1)

    def measured(recipe, role):
        one = cell(recipe, role, key="0" * 64, super_weights=[weight(row) for row in range(500, 505)])
        for corpus in ("wiki-embedded", "web-embedded"):
            nll = [rng.gauss(2.7, 0.3) for _ in range(24)]
            one.perplexity[corpus] = perplexity(nll, window=1024, kl=nll, agreement=nll, protocol="p" * 88)
        for task in ("arc_easy", "hellaswag", "piqa", "sciq"):
            one.zero_shot[task] = zero_shot([float(rng.random() < 0.5) for _ in range(250)])
        return one

    cells = [measured("baseline", "baseline"), *(measured(f"clip-restore-int4-b{i}", "candidate") for i in range(33))]
    assert len(snapshot_text(snapshot(*cells)).encode()) < 200_000


def test_without_items_nothing_is_made_up():
    one = snapshot(baseline(scores=[1.0] * 4))
    bare = baseline(scores=[1.0] * 4)
    bare.zero_shot["piqa"].items = []
    other = snapshot(bare)
    assert other.items == {"piqa": []}
    assert other.scores("baseline", "piqa") == {}
    assert (other.cells["baseline"].zero_shot["piqa"].value, other.cells["baseline"].zero_shot["piqa"].n) == (1.0, 4)
    assert len(one.scores("baseline", "piqa")) == 4


@pytest.mark.parametrize(
    ("damage", "reason", "words"),
    [
        (lambda text: None, "not-found", "cannot be read"),
        (lambda text: "{", "corrupt", "Invalid JSON"),
        (lambda text: '{"run": {}}', "corrupt", "schema_version: Field required"),
        (lambda text: text.replace('"110101"', '"1101"'), "corrupt", "4 scores for 6 items"),
        (lambda text: text.replace('"schema_version": "1.1"', '"schema_version": "2.0"'), "unsupported", "2.0"),
        (lambda text: "<<<<<<< HEAD\n" + text, "corrupt", "Invalid JSON"),
        (lambda text: text[: len(text) // 2], "corrupt", "Invalid JSON"),
    ],
)
def test_what_is_no_snapshot_is_refused_by_name(taken, tmp_path, damage, reason, words):
    path = tmp_path / "m.json"
    text = damage(snapshot_text(taken))
    if text is not None:
        path.write_text(text)
    with pytest.raises(InfraError, match=r"m\.json") as caught:
        read_snapshot(path)
    assert caught.value.reason == reason
    assert words in str(caught.value)
    assert "expected a snapshot of a run" in str(caught.value)


def test_windows_and_figures_must_match(tmp_path):
    text = snapshot_text(snapshot(baseline([1.0, 2.0], perplexity={"wiki": perplexity([1.0, 2.0], index=[0, 3])})))
    assert '"index": [0, 3]' in text
    (tmp_path / "m.json").write_text(text.replace('"index": [0, 3]', '"index": [3, 3]'))
    with pytest.raises(InfraError, match="2 figures for 1 windows"):
        read_snapshot(tmp_path / "m.json")


def test_keys_of_a_later_version_are_left_aside(taken, tmp_path):
    raw = json.loads(snapshot_text(taken))
    raw["colour"] = "red"
    raw["cells"]["rtn"]["super_weights"][0]["colour"] = "red"
    (tmp_path / "m.json").write_text(json.dumps(sealed(raw)))
    assert read_snapshot(tmp_path / "m.json") == taken


def test_a_model_of_which_nothing_was_measured():
    empty = snapshot(CellEvidence(model="m", recipe="baseline", role="baseline"))
    assert empty.checkpoint.content_hash == ""
    assert empty.items == {}


def test_compact_json_fills_lines_and_opens_what_does_not_fit():
    value = {
        "a": [],
        "b": {"c": 1},
        "d": list(range(100)),
        "e": [{"f": 1}, {"g": "x" * 200}],
        "h": -math.inf,
        "i": "ü\n",
    }
    text = compact_json(value)
    lines = text.splitlines()
    assert json.loads(text) == value | {"h": "-inf"}
    assert lines[:3] == ["{", ' "a": [],', ' "b": {"c": 1},']
    assert all(len(line) <= 118 for line in lines if "xxx" not in line)
    assert sum(line.strip()[:1].isdigit() for line in lines) == 4  # a hundred numbers of one to two digits
