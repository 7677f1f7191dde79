"""The guard against skewed values: against scipy, by its defining properties, and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from superweight.verdict.skewness import adjusted, guarded, guarded_reach, sample_skewness


def test_skewness_is_scipys():
    values = [0.1, 0.4, 0.2, 1.9, 0.3, 0.25]
    assert sample_skewness(values) == pytest.approx(stats.skew(values, bias=False), rel=1e-12)
    assert [sample_skewness(few) for few in ([], [1.0], [1.0, 2.0], [0.3] * 9)] == [0, 0, 0, 0]
    many = np.random.default_rng(0).gamma(2, size=(5, 30))
    centred = many - many.mean(axis=1, keepdims=True)
    found = adjusted((centred**2).mean(axis=1), (centred**3).mean(axis=1), 30)
    assert found == pytest.approx(stats.skew(many, axis=1, bias=False))


def test_halls_transformation_by_hand():
    """n = 9: half a standard error is 0.5·√(6·9·8/(7·10·12)) = 0.35857; r = (1 + 0.35857)/3 = 0.45286."""
    t, r = -2.0, 0.45286
    expected = t + r / 6 + r * 4 / 3 - r**2 * 8 / 27
    assert guarded(t, 1.0, 9) == pytest.approx(expected, abs=1e-4)
    assert guarded(2.0, -3.0, 9) == 2.0, "skewness that makes the test more careful than it need be is left alone"
    assert guarded(-2.0, 1.0, 2) == -2.0, "two values tell nothing of it"
    assert guarded(-1e6, 1.0, 9) == -1e6


@pytest.mark.parametrize("n", [3, 8, 40])
@given(
    t=st.floats(-60, 60), step=st.floats(0, 5), skew=st.floats(-3, 3), more=st.floats(0, 2),
)  # fmt: skip
def test_the_guard_only_adds_caution(n, t, step, skew, more):
    assert guarded(t, skew, n) >= t
    assert guarded(t + step, skew, n) >= guarded(t, skew, n) - 1e-9
    reach = abs(t) + 0.1
    assert guarded_reach(reach, skew, n) >= reach
    bound = guarded_reach(reach, skew, n)
    assert guarded(-bound - 1e-6, skew, n) <= -reach <= guarded(-bound + 1e-6, skew, n) + 1e-5


def test_no_reach_stays_none():
    assert guarded_reach(math.inf, 1.0, 5) == math.inf
    assert guarded(-math.inf, 0.0, 5) < -1e99


@pytest.mark.parametrize(("shape", "n"), [(16, 8), (16, 24), (4, 8), (4, 24)])
def test_skewed_losses_pass_no_more_often_than_alpha(shape, n):
    """Gamma losses of skewness 0.5 and 1, moved so that their mean is the margin; plain t would be up to twice alpha."""
    replicates, alpha = 20000, 0.025
    values = (np.random.default_rng(shape).gamma(shape, size=(replicates, n)) - shape) / math.sqrt(shape)
    t = values.mean(axis=1) / (values.std(axis=1, ddof=1) / math.sqrt(n))
    low = guarded(t, stats.skew(values, axis=1, bias=False), n)
    wrong, plain = (np.mean(stats.t.cdf(one, n - 1) <= alpha) for one in (low, t))
    assert wrong <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / replicates)
    assert plain > 0.03
