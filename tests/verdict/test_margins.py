"""Margins that may not be used here: out of date, decided elsewhere, or finer than the noise."""

import math
from datetime import date

import pytest

from superweight.cards import GateCard, WaiverCard
from superweight.evidence import Noise
from superweight.verdict.kinds import loss_margin
from superweight.verdict.margins import (
    below_noise_floor,
    expired,
    noise_floor,
    warnings,
    why_not_applicable,
)

TODAY = date(2026, 11, 23)
HERE = {"planned": 200, "device_class": "cuda NVIDIA H100 80GB HBM3", "today": TODAY}


def card(kind="zero-shot", margin=0.05, **more):
    why = "a reason long enough to be one"
    return GateCard(id="mine", title="G", kind=kind, margin=margin, why=why, date="2026-01-31", **more)


def noise(mean=0.0, sd=0.0, n=100, changed=0):
    variation = "eager attention instead of sdpa"
    return Noise(variation=variation, n=n, value=1.0, reference=1.0, mean=mean, sd=sd, changed=changed)


def test_a_card_that_says_nothing_holds_everywhere():
    assert why_not_applicable(card(), **HERE) is None
    assert warnings(card(), versions={"torch": "2.13.0"}, today=TODAY) == []


@pytest.mark.parametrize(
    ("given", "reason", "words"),
    [
        ({"expires": "2026-11-22"}, "gate-expired", ["'mine'", "2026-11-22", "today is 2026-11-23", "(OPS-7)"]),
        ({"n": 250}, "gate-n", ["'mine'", "250 items", "plans 200", "(OPS-7)"]),
        ({"device_class": "cuda NVIDIA A100"}, "gate-device", ["'cuda NVIDIA A100'", "'cuda NVIDIA H100 80GB HBM3'"]),
        ({"expires": "2026-11-22", "n": 250, "device_class": "cpu"}, "gate-expired", ["expired"]),
        ({"n": 250, "device_class": "cpu"}, "gate-n", ["plans 200"]),
    ],
)
def test_a_card_that_does_not_hold_names_its_class_and_what_to_do(given, reason, words):
    found, sentence = why_not_applicable(card(ticket="OPS-7", **given), **HERE)
    assert found == reason
    for word in words:
        assert word in sentence


def test_a_card_holds_through_its_last_day_and_at_its_own_n_and_machine():
    assert why_not_applicable(card(expires="2026-11-23", n=200, device_class="cuda NVIDIA H100"), **HERE) is None


@pytest.mark.parametrize(
    ("decided", "here", "same"),
    [
        ("cuda NVIDIA H100", "cuda NVIDIA H100 80GB HBM3", True),
        ("cuda", "cuda NVIDIA H100", True),
        ("cuda NVIDIA A10", "cuda NVIDIA A100-SXM4-80GB", False),
        ("cuda NVIDIA A100", "cuda NVIDIA A100-SXM4-80GB", True),
        ("cpu x86_64 AVX512", "cpu x86_64 AVX512", True),
        ("cpu x86_64 AVX512", "cpu x86_64 AVX2", False),
        ("NVIDIA H100", "cuda NVIDIA H100", False),
    ],
)
def test_device_classes_are_compared_by_whole_words_from_the_beginning(decided, here, same):
    assert (why_not_applicable(card(device_class=decided), planned=200, device_class=here, today=TODAY) is None) is same


def test_windows_are_counted_on_a_corpus_and_items_on_a_task():
    assert "24 windows" in why_not_applicable(card("perplexity", n=24), **HERE)[1]
    assert "24 windows" in why_not_applicable(card("agreement", n=24), **HERE)[1]
    assert "24 items" in why_not_applicable(card("flips", n=24), **HERE)[1]


def test_other_versions_are_told():
    given = card(versions={"torch": "2.9", "transformers": "5", "lm-eval": "0.4.13", "optimum": "2"})
    found = warnings(given, versions={"torch": "2.90.0", "transformers": "5.1", "lm-eval": "0.4.13+local"}, today=TODAY)
    assert found == [
        "gate card 'mine' was decided with torch 2.9, this run has 2.90.0",
        "gate card 'mine' was decided with optimum 2, which this run does not record",
    ]


@pytest.mark.parametrize(
    ("expires", "words"),
    [("2026-12-23", "in 30 days"), ("2026-11-24", "in 1 day"), ("2026-11-23", "in 0 days"), ("2026-12-24", None), ("2026-11-22", None)],
)  # fmt: skip
def test_an_expiry_that_is_near_is_told(expires, words):
    found = warnings(card(expires=expires), versions={}, today=TODAY)
    assert [words in sentence for sentence in found] == ([True] if words else [])


def test_margins_as_losses():
    """A ratio of 1.05 is ln 1.05 = 0.0487902 nats a token; the other kinds are on their own scale."""
    assert loss_margin(card("perplexity", 0.05)) == pytest.approx(0.04879016417, abs=1e-11)
    assert loss_margin(card("zero-shot", 0.05)) == loss_margin(card("divergence", 0.05)) == 0.05


def test_the_noise_floor_is_the_bias_and_twice_its_standard_error():
    assert noise_floor(noise(mean=-0.003, sd=0.04, n=400)) == pytest.approx(0.003 + 2 * 0.04 / 20)
    assert noise_floor(noise()) == 0
    for nothing in (noise(n=0), noise(mean=math.nan), noise(sd=math.inf)):
        assert noise_floor(nothing) == math.inf


def test_a_margin_below_the_floor_says_both_figures_and_what_to_do():
    """Floor 0.002 + 2·0.1/√100 = 0.022 nats; a margin of 0.02 is ln 1.02 = 0.0198 nats."""
    repeat = noise(mean=0.002, sd=0.1, changed=97)
    assert below_noise_floor(card("perplexity", 0.0223), repeat) is None
    sentence = below_noise_floor(card("perplexity", 0.02), repeat)
    for word in (
        "'mine'",
        "0.02 nats",
        "0.022 nats",
        "100 windows",
        "97 of 100",
        "eager attention",
        "widen the margin",
    ):
        assert word in sentence
    assert below_noise_floor(card("zero-shot", 0.022), repeat) is None
    assert "items" in below_noise_floor(card("zero-shot", 0.02), repeat)
    assert "nats" not in below_noise_floor(card("zero-shot", 0.02), repeat)


def test_no_finite_repeat_allows_no_margin():
    assert "no finite difference" in below_noise_floor(card(), noise(sd=math.nan))


def test_waivers_are_active_through_their_last_day_and_told_after_it():
    waiver = WaiverCard(
        id="w", model="m", recipe="rtn-*", gate="zero-shot:piqa", ticket="OPS-9", why="a reason long enough to be one",
        date="2026-11-01", expires="2026-11-23",
    )  # fmt: skip
    assert waiver.valid_on(TODAY)
    assert expired(waiver, TODAY) is None
    tomorrow = date(2026, 11, 24)
    assert not waiver.valid_on(tomorrow)
    for word in ("'w'", "OPS-9", "zero-shot:piqa", "m/rtn-*", "2026-11-23"):
        assert word in expired(waiver, tomorrow)
