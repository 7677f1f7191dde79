"""Pictures: that their findings are true of the figures, and that odd figures neither break nor bend them."""

import math
from xml.etree import ElementTree as ET

import altair as alt
import pytest
from test_page import gate, run_of

from superweight.errors import InfraError
from superweight.evidence import LayerPeaks, Peak, Size
from superweight.report.pictures import drawing, gallery
from superweight.report.pictures.activations_by_layer import layer_picture
from superweight.report.pictures.by_recipe import change_picture
from superweight.report.pictures.drawing import DrawingError, draw
from superweight.report.pictures.history import history_picture
from superweight.report.pictures.int4_block_size import block_picture
from superweight.report.pictures.size_and_quality import size_picture
from superweight.report.pictures.super_weight_scale import scale_picture
from superweight.report.pictures.theme import log_axis, specification
from superweight.runs.history import append_run, read_history
from superweight.runs.read import snapshots_of
from support import by_hand

SVG = "{http://www.w3.org/2000/svg}"


def cells(*pairs):
    return run_of(*pairs).cells


def changed(recipe, by, role="candidate", verdict="PASS", kind="perplexity:wiki", bits=8.0, **more):
    """A cell of which one figure changed by so much."""
    size = None if bits is None else Size(compressed_bits_per_weight=bits / 2, model_bits_per_weight=bits)
    interval = (by - 0.01, by + 0.01) if math.isfinite(by) else None
    value = 20.0 * (1 + by) if kind.startswith("perplexity") else 0.5 + by
    one = gate(kind, verdict, difference=by, interval=interval, value=value)
    return by_hand.cell(recipe, role, size=size, expects="REGRESSION" if role == "control" else None, **more), [one]


def drawn(picture):
    alt.Chart.from_dict(specification(picture.chart))  # checks it against Vega-Lite's schema
    (found,) = draw([picture])
    assert not isinstance(found, DrawingError), found
    return ET.fromstring(found)


def tips(picture):
    return [element.get("data-tip") for element in drawn(picture).iter() if element.get("data-tip")]


@pytest.mark.parametrize(
    ("given", "title"),
    [
        (
            [("a", 0.01, "PASS"), ("b", 0.03, "PASS")],
            "both candidates pass; b has least room, at worst +4.0 % on wiki where +5 % is accepted",
        ),
        ([("a", 0.01, "PASS")], "the only candidate passes; a has least room"),
        ([("a", 0.2, "REGRESSION"), ("b", 0.01, "PASS")], "a lost +20.0 % on wiki, +5 % is accepted"),
        ([("a", 0.04, "INCONCLUSIVE"), ("b", 0.01, "PASS")], "too few windows to tell for a"),
    ],
)
def test_the_finding_of_changes(given, title):
    found = change_picture(cells(*[changed(name, by, verdict=verdict) for name, by, verdict in given]), "perplexity")
    assert title in found.title


def test_a_finding_never_passes_what_was_not_judged():
    stale, undecided = changed("stale", 0.3, verdict="INFRA"), changed("open", 0.01, verdict="INCONCLUSIVE")
    nothing = by_hand.cell("none"), []
    said = change_picture(cells(stale, undecided, nothing, changed("good", 0.01)), "perplexity").title
    assert said == (
        "Perplexity: 1 of 4 candidates passes; good has least room, at worst +2.0 % on wiki where +5 % is accepted; "
        "too few windows to tell for open; stale, none not judged"
    )
    assert "no candidate is shown to pass; stale not judged" in change_picture(cells(stale), "perplexity").title


def test_scores_lose_downwards_and_perplexity_upwards():
    picture = change_picture(
        cells(changed("a", -0.04, kind="zero-shot:piqa"), changed("b", 0.1, kind="zero-shot:piqa")), "zero-shot"
    )
    assert "a has least room, at worst -5.0 pt on piqa where -5 pt is accepted" in picture.title
    assert list(picture.table["recipe"]) == ["a", "b"]


@pytest.mark.parametrize("by", [math.inf, 1e9, -0.99, 0.0])
def test_changes_beyond_the_scale_stand_at_its_edge(by):
    picture = change_picture(cells(changed("a", by, verdict="REGRESSION"), changed("b", 0.01)), "perplexity")
    root = drawn(picture)
    numbers = [value for element in root.iter() for value in element.attrib.values()]
    assert not any("NaN" in value or "Infinity" in value for value in numbers)
    assert any("a:" in tip for tip in tips(picture))


def test_nothing_to_draw_is_no_picture():
    nothing = cells((by_hand.baseline(), []), (by_hand.cell("rtn", size=None), []))
    for make in (size_picture, block_picture, layer_picture, scale_picture):
        assert make(nothing) is None
    assert change_picture(nothing, "perplexity") is None
    assert history_picture([], "m", "smoke") is None
    assert gallery(run_of()) == ({}, [])


def test_the_smallest_that_passes_is_a_candidate_if_one_passes():
    found = size_picture(
        cells(
            changed("tiny", 0.5, verdict="REGRESSION", bits=4.0),
            changed("small", 0.02, role="reference", bits=5.0),
            changed("good", 0.03, bits=6.0),
            changed("large", 0.01, bits=9.0),
        )
    )
    assert found.title == (
        "2 candidates pass at 6.0 to 9.0 bits per weight; nothing smaller passes; large costs least, perplexity ×1.01"
    )
    front = dict(zip(found.table["recipe"], found.table["passes, and none smaller and better"], strict=True))
    assert front == {"tiny": "", "small (reference)": "yes", "good": "", "large": "yes"}


def test_nothing_that_is_as_large_as_the_checkpoint_is_a_smaller_model():
    base = (by_hand.baseline(size=Size(compressed_bits_per_weight=16, model_bits_per_weight=16)), [])
    assert size_picture(cells(base, changed("same", 0.0, bits=16.0), changed("half", 0.01, bits=8.0))) is None


def test_a_mean_of_scores_needs_every_task():
    undecided = changed("open", 0.06, kind="zero-shot:piqa", verdict="INCONCLUSIVE")
    found = size_picture(
        cells(undecided, changed("a", 0.0, kind="zero-shot:piqa"), changed("b", -0.02, kind="zero-shot:piqa", bits=7.0))
    )
    assert dict(zip(found.table["recipe"], found.table["mean change of score"], strict=True)) == {
        "open": "",
        "a": "+0.0 pt",
        "b": "-2.0 pt",
    }


def rounded(kind, block, ratio, bits=4):
    given = {"kind": kind, "bits": bits, "granularity": "block", "block_size": block, "group_size": None}
    given |= {"z": "inf"} if kind == "clip-restore" else {}  # as read back from JSON
    return changed(f"{kind}-{block}", ratio - 1, role="reference", verdict="REGRESSION", recipe_parameters=given)


@pytest.mark.parametrize(
    ("clip", "said"),
    [
        ({64: 1.1, 128: 1.2, 4096: 2.0}, "helps at every size of block on wiki: ×2 against ×9 at 4,096 elements"),
        ({64: 1.5, 128: 1.6, 4096: 2.0}, "helps in blocks of 4,096 elements and more on wiki"),
        ({64: 1.1, 128: 1.6, 4096: 9.0}, "helps in blocks of 64 elements on wiki"),
        ({64: 1.5, 128: 1.6, 4096: 9.05}, "makes no difference on wiki"),
        ({64: 1.5, 128: 1.6, 4096: 12.0}, "helps nowhere on wiki"),
    ],
)
def test_the_finding_of_blocks(clip, said):
    rtn = {64: 1.5, 128: 1.6, 4096: 9.0}
    found = block_picture(
        cells(
            *[rounded("rtn", *pair) for pair in rtn.items()], *[rounded("clip-restore", *pair) for pair in clip.items()]
        )
    )
    assert said in found.title
    assert len(found.table) == 6
    assert len(tips(found)) == 6


def test_blocks_of_other_bits_are_another_picture():
    assert block_picture(cells(rounded("rtn", 64, 1.5), rounded("rtn", 128, 1.6, bits=8))) is None


def peaks(sizes, channel=5):
    peak = [Peak(value=size, channel=channel, token=0, bos=True) for size in sizes]
    return [
        LayerPeaks(layer=i, down_input=one, down_output=one, residual=one, residual_median=1.0)
        for i, one in enumerate(peak)
    ]


def test_the_finding_of_layers():
    activation = {"layer": 1, "channel": 5, "value": -900.0}
    base = by_hand.baseline(peaks=peaks([1.0, -900.0, 2.0]), detection={"super_activations": [activation]})
    kept, lost = (
        by_hand.cell("clip", peaks=peaks([1.0, -890.0, 2.0])),
        by_hand.cell("prune", "control", peaks=peaks([1.0, 3.0, 0.0])),
    )
    found = layer_picture(cells((base, []), (kept, []), (lost, [])))
    assert found.title == (
        "The super activation that layer 1 writes (-900 in channel 5) stays within 5 % under clip, and loses more than half "
        "under prune"
    )
    assert len(found.table) == 3
    assert len(tips(found)) == 16  # nine entries a side, less the zero, which has no place on a logarithmic axis


@pytest.mark.parametrize(
    ("now", "channel", "said"),
    [
        (-2700.0, 5, "changes under x"),
        (math.inf, 5, "changes under x"),
        (-900.0, 9, "is gone under x"),
        (-100.0, 5, "loses more than half under x"),
    ],
)
def test_what_became_of_an_activation(now, channel, said):
    activation = {"layer": 1, "channel": 5, "value": -900.0}
    base = by_hand.baseline(peaks=peaks([1.0, -900.0]), detection={"super_activations": [activation]})
    other = by_hand.cell("x", peaks=peaks([1.0, now], channel))
    assert layer_picture(cells((base, []), (other, []))).title.endswith(said)


def test_a_model_without_super_activation():
    base, other = by_hand.baseline(peaks=peaks([1.0, 2.0]), detection={}), by_hand.cell("clip", peaks=peaks([1.0, 2.0]))
    assert "has no super activation" in layer_picture(cells((base, []), (other, []))).title


def scaled(factor, ratio):
    given = {"kind": "prune-super-weights"} if factor == 0 else {"kind": "scale-super-weights", "factor": factor}
    return changed(f"x{factor}", ratio - 1, role="reference", verdict="REGRESSION", recipe_parameters=given)


def test_the_finding_of_scales():
    found = scale_picture(cells(scaled(0, 5000.0), scaled(0.5, 3.0), scaled(2.0, 1.3), scaled(1.5, 0.98)))
    assert (
        found.title
        == "Removing the super weights makes perplexity ×5,000 on wiki; enlarging them costs less, ×1.3 at 2 times"
    )
    assert list(found.table["factor"]) == ["0", "0.5", "1", "1.5", "2"]
    drawn(found)


def test_history_marks_releases_and_shows_the_tier_asked_for(tmp_path):
    for day in range(1, 6):
        document = run_of(changed("clip", 0.01 * day), started=f"2026-11-0{day}T01:00:00+00:00")
        append_run(tmp_path, document, snapshots_of(document), {"m": "2026-11-02T01:00:00+00:00"})
    runs = read_history(tmp_path).runs
    found = history_picture(runs, "m", "smoke")
    assert found.title == "5 runs since 2026-11-01: no figure of the last run is beyond what is accepted"
    assert [run.endswith("(release)") for run in found.table["run"]] == [False, True, False, False, False]
    text = "".join(drawn(found).itertext())
    assert "release" in text
    assert history_picture(runs, "m", "nightly") is None
    assert (
        history_picture(runs, "m", "smoke", ["perplexity is up"]).title == "perplexity is up; 5 runs since 2026-11-01"
    )
    assert "no figure drifts" in history_picture(runs, "m", "smoke", []).title


def test_history_never_says_that_all_is_well_when_the_last_run_lost(tmp_path):
    for day, by, verdict in ((1, 0.01, "PASS"), (2, 0.08, "REGRESSION")):
        document = run_of(changed("clip", by, verdict=verdict), started=f"2026-11-0{day}T01:00:00+00:00")
        append_run(tmp_path, document, snapshots_of(document), {})
    found = history_picture(read_history(tmp_path).runs, "m", "smoke", [])
    assert found.title == "Last run: clip +1.0 % → +8.0 % on wiki; 2 runs since 2026-11-01"


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([1.0, 1.5], [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]),
        ([1.0, 4.0], [1.0, 2.0, 3.0, 4.0]),
        ([0.9, 1e6], [0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]),
        ([1.0, 1.0], None),
        ([], None),
        ([0.0, -1.0, math.inf], None),
    ],
)
def test_ticks_of_logarithmic_axes_are_round(values, ticks):
    scale, axis = log_axis("title", values)
    low, high = scale.to_dict()["domain"]
    found = axis.to_dict()["values"]
    assert 0 < low < high
    assert len(found) <= 9
    assert all(low <= tick <= high for tick in found)
    if ticks:
        assert found == pytest.approx(ticks)


def test_a_renderer_that_dies_costs_one_picture(monkeypatch, tmp_path):
    script = tmp_path / "vega.py"
    script.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    if 'poison' in line: os.abort()\n"
        "    print(json.dumps({'svg': '<svg xmlns=\"http://www.w3.org/2000/svg\"/>'}), flush=True)\n"
    )
    monkeypatch.setattr(drawing, "_SCRIPT", script)
    good = change_picture(cells(changed("a", 0.01)), "perplexity")
    bad = change_picture(cells(changed("poison", 0.01)), "perplexity")
    first, second, third = draw([good, bad, good])
    assert isinstance(second, DrawingError)
    assert "died" in str(second)
    assert str(first).startswith("<svg")
    assert first == third


def test_whatever_goes_wrong_in_drawing_costs_pictures_only(monkeypatch):
    def fails(*args, **kwargs):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(drawing.subprocess, "run", fails)
    models, notes = gallery(run_of(changed("a", 0.01)))
    assert models == {}
    assert "Cannot allocate memory" in notes[0]


def test_pictures_of_a_model_that_is_not_there_are_refused():
    with pytest.raises(InfraError, match="no model 'n' in this run, whose models are: m"):
        gallery(run_of(changed("a", 0.01)), models=["n"])


def test_without_the_packages_there_is_a_report_without_pictures(monkeypatch):
    monkeypatch.setattr(drawing, "find_spec", lambda name: None)
    models, (note,) = gallery(run_of(changed("a", 0.01)))
    assert models == {}
    assert "pip install altair vl-convert-python" in note
