"""What is read back: seals that fit, times, and figures that are those of what they are made of."""

import hashlib
import json
import math
import os

import pytest

from superweight.errors import InfraError
from superweight.evidence.moment import moment
from superweight.evidence.recomputed import perplexity_fits, score_fits
from superweight.evidence.seal import seal_of, sealed
from superweight.runs.snapshot import read_snapshot


def test_a_pipe_is_no_snapshot_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InfraError, match=r"pipe: cannot be read \(is a pipe or a device, not a file"):
        read_snapshot(tmp_path / "pipe")


def test_a_seal_is_the_sha256_of_everything_else_as_canonical_json():
    text = json.dumps(sealed({"b": [1, 0.1, math.inf], "a": "é\ud800"}))
    canonical = b'{"a":"\\u00e9\\ud800","b":[1,0.1,"inf"]}'
    assert json.loads(text)["digest"] == hashlib.sha256(canonical).hexdigest()
    assert seal_of(text, since="1.2") == "intact"
    assert seal_of(json.dumps(sealed(json.loads(text))), since="1.2") == "intact"


def test_a_seal_breaks_with_any_value_and_with_no_layout():
    raw = sealed({"a": {"x": 1.0, "y": [1, 2]}, "b": None})
    assert seal_of(json.dumps(dict(reversed(raw.items())), indent=3), since="1.2") == "intact"
    for other in (
        raw | {"b": 0},
        raw | {"c": 1},
        {k: raw[k] for k in raw if k != "b"},
        raw | {"a": {"x": 1, "y": [1, 2]}},
    ):
        assert seal_of(json.dumps(other), since="1.2") == "broken"
    assert (
        seal_of('{"schema_version": "1.1"}', since="1.2") == seal_of('{"schema_version": "0.9"}', since="1.2") == "none"
    )
    for text in (
        '{"schema_version": "1.2"}',
        '{"schema_version": "1.10"}',
        '{"schema_version": "x"}',
        '{"a": 1}',
        "[]",
    ):
        assert seal_of(text, since="1.2") == "broken"
    assert seal_of("[" * 100_000, since="1.2") == seal_of("{", since="1.2") == "broken"


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-01:00"]
)
def test_what_is_no_time(text):
    with pytest.raises(ValueError, match=r"isoformat|month"):
        moment(text)


def test_figures_are_held_against_what_they_are_made_of():
    assert perplexity_fits(math.exp(2.0), [1.0, 3.0])
    assert not perplexity_fits(math.exp(2.1), [1.0, 3.0])
    assert perplexity_fits(math.inf, [1.0, math.inf])
    assert perplexity_fits(math.inf, [800.0])
    assert not perplexity_fits(3.0, [1.0, math.nan])
    assert not perplexity_fits(3.0, [])
    assert score_fits("acc_norm", 0.75, [1.0, 1.0, 1.0, 0.0])
    assert not score_fits("acc", 0.5, [1.0, 1.0, 1.0, 0.0])
    assert score_fits("mcc", 0.5, [1.0])  # no mean over items
