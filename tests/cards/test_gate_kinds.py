"""The table of gate kinds: what a row says, what may be added, and what is refused."""

from dataclasses import replace

import pytest

from superweight.cards import GateCard, gate_kinds
from superweight.cards.gate_kinds import (
    AGREEMENT,
    DIVERGENCE,
    FLIPS,
    GATE_KINDS,
    PERPLEXITY,
    ZERO_SHOT,
    GateKind,
    gate_kind,
    kinds_from,
    kinds_of,
    register,
)
from superweight.errors import CardError

MINE = GateKind(name="worst-window", of="corpus", scale="nats", margin="loss of a window, nats a token", judge="m:f")


@pytest.fixture(autouse=True)
def the_table_as_it_was():
    before = dict(GATE_KINDS)
    yield
    gate_kinds._ROWS.clear()
    gate_kinds._ROWS.update(before)


def test_what_is_built_in():
    assert list(GATE_KINDS) == ["perplexity", "zero-shot", "divergence", "agreement", "flips"]
    assert kinds_of("corpus") == kinds_from("perplexity") == (PERPLEXITY, DIVERGENCE, AGREEMENT)
    assert kinds_of("task") == kinds_from("zero-shot") == (ZERO_SHOT, FLIPS)
    assert kinds_from("") == kinds_from("sanity") == ()
    assert [kind.name for kind in GATE_KINDS.values() if kind.required] == ["perplexity", "zero-shot"]
    assert {kind.items for kind in kinds_of("corpus")} == {"windows"}


def test_a_kind_that_is_registered_is_a_kind_everywhere():
    assert register(MINE) is register(replace(MINE)) is MINE
    assert gate_kind("worst-window") is GATE_KINDS["worst-window"] is MINE
    assert kinds_of("corpus")[-1] is MINE
    why = "a reason long enough to be one"
    assert GateCard(id="w", title="W", kind="worst-window", margin=2, why=why, date="2026-01-31").margin == 2


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (replace(MINE, name="Worst window"), ["'Worst window'", "lower-case"]),
        (replace(MINE, name="perplexity"), ["'perplexity'", "taken", "zero-shot"]),
        (replace(MINE, name="sanity"), ["'sanity'", "taken", "super-weights"]),
    ],
)
def test_a_name_that_is_no_identifier_or_is_taken_is_refused(kind, words):
    with pytest.raises(CardError) as caught:
        register(kind)
    for word in words:
        assert word in str(caught.value)


def test_a_kind_that_nobody_registered_is_told_with_those_that_are_there():
    with pytest.raises(CardError, match=r"'speed' is not known\. Known: perplexity, zero-shot, divergence"):
        gate_kind("speed")
