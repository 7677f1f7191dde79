"""The guard against skewed values: against scipy, by its defining properties, and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from superweight.statistics.skewness import adjusted, interval_stretch, sample_skewness, skew_guarded_t, standard_error


def test_skewness_is_scipys():
    values = [0.1, 0.4, 0.2, 1.9, 0.3, 0.25]
    assert sample_skewness(values) == pytest.approx(stats.skew(values, bias=False), rel=1e-12)
    assert [sample_skewness(few) for few in ([], [1.0], [1.0, 2.0], [0.3] * 9)] == [0, 0, 0, 0]
    many = np.random.default_rng(0).gamma(2, size=(5, 30))
    centred = many - many.mean(axis=1, keepdims=True)
    found = adjusted((centred**2).mean(axis=1), (centred**3).mean(axis=1), 30)
    assert found == pytest.approx(stats.skew(many, axis=1, bias=False))


def test_standard_error_by_simulation():
    values = np.random.default_rng(5).normal(size=(20000, 10))
    assert standard_error(10) == pytest.approx(stats.skew(values, axis=1, bias=False).std(), rel=0.02)
    assert standard_error(np.array([1, 2])).tolist() == [0, 0]


def test_the_guard_by_hand():
    """n = 9: three quarters of a standard error are 0.75·√(6·9·8/(7·10·12)) = 0.53785; exp(1.53785/3) = 1.66966."""
    assert interval_stretch(1.0, 9) == pytest.approx(1.66966, abs=1e-5)
    assert skew_guarded_t(-3.0, 1.0, 9) == pytest.approx(-3 / 1.66966, abs=1e-5)
    assert interval_stretch(-3.0, 9) == 1, "skewness that makes the test more careful than it need be is left alone"
    assert skew_guarded_t(2.0, 1.0, 9) == 2.0
    assert interval_stretch(0.0, 2) == 1, "two values tell nothing of it"
    assert skew_guarded_t(-math.inf, 0.0, 9) == -math.inf


@pytest.mark.parametrize("n", [3, 8, 40])
@given(t=st.floats(-60, 60), step=st.floats(0, 5), skew=st.floats(-3, 3), more=st.floats(0, 2))
def test_the_guard_only_adds_caution(n, t, step, skew, more):
    assert skew_guarded_t(t, skew, n) >= t
    assert skew_guarded_t(t + step, skew, n) >= skew_guarded_t(t, skew, n)
    assert skew_guarded_t(t, skew + more, n) >= skew_guarded_t(t, skew, n)


@pytest.mark.parametrize(("shape", "n"), [(4, 4), (4, 8), (4, 24), (4, 128), (16, 8), (16, 128)])
@pytest.mark.parametrize("level", [0.025, 0.005])
def test_the_stretch_covers_the_quantiles_of_skewed_values(shape, n, level):
    """Gamma values of known skewness 2/√shape, with nothing added to it; as far as simulation tells."""
    values = np.random.default_rng([shape, n]).gamma(shape, size=(60000, n)) - shape
    t = values.mean(axis=1) / (values.std(axis=1, ddof=1) / math.sqrt(n))
    needed = np.quantile(t, level) / stats.t.ppf(level, n - 1)
    assert interval_stretch(2 / math.sqrt(shape), n, added=0.0) >= needed * 0.98


@pytest.mark.parametrize(("shape", "n"), [(16, 8), (16, 24), (4, 8), (4, 24)])
def test_skewed_losses_pass_no_more_often_than_alpha(shape, n):
    """Gamma losses of skewness 0.5 and 1, moved so that their mean is the margin; plain t would be up to twice alpha."""
    replicates, alpha = 20000, 0.025
    values = (np.random.default_rng(shape).gamma(shape, size=(replicates, n)) - shape) / math.sqrt(shape)
    t = values.mean(axis=1) / (values.std(axis=1, ddof=1) / math.sqrt(n))
    low = skew_guarded_t(t, stats.skew(values, axis=1, bias=False), n)
    wrong, plain = (np.mean(stats.t.cdf(one, n - 1) <= alpha) for one in (low, t))
    assert wrong <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / replicates)
    assert plain > 0.03
