"""Means over values that may be no numbers."""

import math

from superweight.statistics.averages import finite, mean


def test_a_mean_is_rounded_once():
    assert mean([0.1] * 10) == 0.1
    assert mean([1e16, 1.0, -1e16]) == 1 / 3


def test_a_mean_over_what_is_no_number_is_infinite():
    for broken in (math.nan, math.inf, -math.inf):
        assert mean([1.0, broken]) == math.inf
        assert not finite([1.0, broken])
    assert finite([])
