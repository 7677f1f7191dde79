"""Losses and changes of each scale, and how they are written: by hand."""

import math
from dataclasses import replace

import pytest

from superweight.cards import gate_kinds
from superweight.cards.gate_kinds import AGREEMENT, DIVERGENCE, FLIPS, PERPLEXITY, ZERO_SHOT
from superweight.verdict.kinds import (
    IN_MESSAGES,
    NATS,
    OWN,
    POINTS,
    RATIO,
    as_multiple,
    change_of,
    change_text,
    figure_text,
    interval_text,
    scale_of,
)
from support.by_hand import BASE, baseline, cell
from support.judging import card, gates, rules


def test_each_kind_has_its_scale():
    assert [scale_of(kind) for kind in (PERPLEXITY, DIVERGENCE, AGREEMENT, FLIPS)] == [RATIO, NATS, POINTS, POINTS]
    assert scale_of("perplexity") is RATIO
    assert scale_of("sanity") is OWN
    assert scale_of(ZERO_SHOT, 0.05, 0.6, None) is POINTS
    assert scale_of(ZERO_SHOT, 0.05, math.inf) is POINTS
    assert scale_of(ZERO_SHOT, 0.5, 20.0) is OWN  # no share
    assert scale_of(ZERO_SHOT, 1.5) is OWN


def test_a_ratio_is_a_loss_in_nats_and_back():
    """ln 1.05 = 0.04879; e^800 is no float."""
    assert RATIO.loss(0.05) == pytest.approx(0.04879016417)
    assert RATIO.change(0.04879016417) == pytest.approx(0.05)
    assert RATIO.change(-math.inf) == -1
    assert RATIO.change(800.0) == RATIO.total([800.0]) == RATIO.total([1.0, math.nan]) == math.inf
    assert RATIO.total([1.0, 3.0]) == pytest.approx(math.e**2)
    assert RATIO.difference(20.0, 20.0 * math.e) == pytest.approx(1)


def test_a_score_that_rises_is_no_loss():
    found = change_of(POINTS, 0.25, (-0.5, 1.0), higher_is_better=True)
    assert (found.difference, found.interval) == (-0.25, (-1.0, 0.5))
    assert str(change_of(POINTS, 0.0, (0.0, 0.0), higher_is_better=True).difference) == "0.0"
    assert change_of(RATIO, math.log(2), (0.0, math.log(4)), higher_is_better=False).interval[1] == pytest.approx(3)


@pytest.mark.parametrize(
    ("scale", "change", "table", "message"),
    [
        (RATIO, 0.0267, "+2.7 %", "+2.67 %"),
        (RATIO, -0.00001, "+0.0 %", "+0.00 %"),
        (RATIO, 8.99, "+899.0 %", "+899.00 %"),
        (RATIO, 9.0, "×10", "×10"),
        (RATIO, 128_345.0, "×130,000", "×130,000"),
        (RATIO, math.inf, "×∞", "×∞"),
        (RATIO, math.nan, "not a number", "not a number"),
        (POINTS, -0.0155, "-1.6 pt", "-1.55 pt"),
        (POINTS, -0.0, "+0.0 pt", "+0.00 pt"),
        (POINTS, -math.inf, "-inf pt", "-inf pt"),
        (NATS, 0.0123456, "+0.0123 nats a token", "+0.01235 nats a token"),
        (OWN, 1.5, "+1.500", "+1.5000"),
    ],
)
def test_a_change_is_written_one_way_and_more_exactly_where_it_is_argued_with(scale, change, table, message):
    assert change_text(scale, change) == table
    assert change_text(scale, change, IN_MESSAGES) == message


def test_ends_stand_without_the_unit():
    assert interval_text(RATIO, (0.01, 12.0)) == " [+1.0, ×13]"
    assert interval_text(POINTS, (-0.0155, 0.02), IN_MESSAGES) == " [-1.55, +2.00]"
    assert interval_text(POINTS, None) == ""


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (None, "acc", ""),
        (0.61234, "acc_norm", "0.612"),
        (20.4567, "perplexity", "20.46"),
        (123_456.0, "perplexity", "1.23e+05"),
        (3.0, "survived", "3"),
        (math.inf, "perplexity", "inf"),
    ],
)
def test_figures(value, metric, text):
    assert figure_text(value, metric) == text


def test_multiples():
    assert [as_multiple(ratio) for ratio in (1.034, 128_345.0, 2.84e36)] == ["×1.03", "×130,000", "×2.8e+36"]


def test_a_message_and_a_table_agree():
    """A message is the table's figure with one more decimal."""
    from superweight.report.format import difference, margin

    gate = gates(cell(nll=[nll + 0.02 for nll in BASE]), baseline())["perplexity:wiki"]
    assert str(difference(gate)) == "+2.0 % [+2.0, +2.0]"
    assert margin(gate) == "+5 %"
    assert "+2.02 % [+2.02, +2.02] over 8 windows of 512 tokens; accepted up to +5 %" in gate.message


def test_a_kind_without_its_judge_is_infra(monkeypatch):
    """A package that was taken away, or a name that is misspelt."""
    lost = replace(DIVERGENCE, name="lost", judge="a_module_that_is_nowhere:judge")
    monkeypatch.setitem(gate_kinds._ROWS, "lost", lost)
    found = gates(cell(nll=BASE), baseline(), rules(card(), card("zero-shot"), card("lost")))["lost:wiki"]
    assert (found.verdict, found.reason) == ("INFRA", "no-judge")
    assert "'a_module_that_is_nowhere:judge' cannot be imported" in found.message
