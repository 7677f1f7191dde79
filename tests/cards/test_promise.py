"""What a promise of super weights reads, prints and accepts."""

import math

import pytest

from superweight.cards.promise import Promise, lost


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("exact", "exact"),
        (" within-step ", "within-step"),
        ("2 %", "2 %"),
        ("0.5%", "0.5 %"),
        ("0%", "0 %"),
        ("49.9 %", "49.9 %"),
    ],
)
def test_promises_are_read_and_printed(text, printed):
    assert str(Promise.of(text)) == printed
    assert Promise.of(printed) == Promise.of(text)


@pytest.mark.parametrize(
    "text", ["", "2", "-1 %", "2 percent", "nan %", "within step", "1e3 %", "50 %", "100 %", "999999 %"]
)
def test_what_is_no_promise_is_refused(text):
    with pytest.raises(ValueError, match="expected"):
        Promise.of(text)


@pytest.mark.parametrize(
    ("promise", "value", "step", "kept"),
    [
        ("exact", 5.875, 1.0, True),
        ("exact", 5.8750001, 1.0, False),
        ("within-step", 5.5, 0.5, True),
        ("within-step", 6.375, 0.5, True),  # exactly a step
        ("within-step", 6.376, 0.5, False),
        ("within-step", 5.875, None, True),
        ("within-step", 5.8, None, False),
        ("within-step", 0.0, 8.0, False),  # within a step of a coarse grid, and gone
        ("within-step", 2.9, 8.0, False),
        ("within-step", 3.0, 8.0, True),
        ("within-step", 5.0, math.inf, False),
        ("within-step", math.inf, math.inf, False),
        ("2 %", 5.99, None, True),
        ("2 %", 6.0, None, False),
        ("49 %", -5.875, None, False),
        ("49 %", math.nan, None, False),
        ("exact", math.nan, 1.0, False),
    ],
)
def test_what_is_kept(promise, value, step, kept):
    assert Promise.of(promise).kept(5.875, value, step) is kept
    assert Promise.of(promise).kept(-5.875, -value, step) is kept


@pytest.mark.parametrize("promise", ["exact", "within-step", "10 %"])
@pytest.mark.parametrize("original", [math.nan, math.inf])
def test_nothing_keeps_an_original_that_is_no_number(promise, original):
    assert not Promise.of(promise).kept(original, original, 1.0)


def test_lost_is_another_sign_or_less_than_half():
    assert [lost(4.0, value) for value in (2.0, 1.99, 0.0, -4.0, math.nan, math.inf, 9.0)] == [
        False,
        True,
        True,
        True,
        True,
        True,
        False,
    ]
