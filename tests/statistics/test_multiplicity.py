"""Holm's correction against hand computation and its defining properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superweight.statistics.multiplicity import holm


def test_holm_by_hand():
    """Sorted 0.005 0.01 0.03 0.04 times 4 3 2 1 is 0.02 0.03 0.06 0.04; the last may not be below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_missing_members_count_as_one():
    assert holm([0.01, 0.02], family=5) == pytest.approx([0.05, 0.08])
    assert holm([0.01], family=1) == [0.01]
    assert holm([], family=3) == holm([]) == []
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.7, 0.7], family=2) == [1.0, 1.0]


def test_family_must_hold_what_is_given():
    with pytest.raises(ValueError, match="family of 1"):
        holm([0.1, 0.2], family=1)


probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(probabilities, st.integers(0, 5))
def test_holm_orders_as_the_p_values_do(p_values, missing):
    adjusted = holm(p_values, len(p_values) + missing)
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
    assert max(adjusted) <= 1
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)
    assert adjusted[order[0]] == min(1, p_values[order[0]] * len(adjusted) + p_values[order[0]] * missing) or (
        adjusted[order[0]] == pytest.approx(min(1, p_values[order[0]] * (len(p_values) + missing)))
    )


def test_family_error_rate_of_true_hypotheses():
    rng = np.random.default_rng(1979)
    wrong = [min(holm(row)) <= 0.05 for row in rng.random((4000, 6)).tolist()]
    assert np.mean(wrong) == pytest.approx(1 - (1 - 0.05 / 6) ** 6, abs=0.01)
