"""Drift: what raises an alarm and what must not."""

import math

import numpy as np
import pytest

from superweight.runs.drift import Point, drift

MARGIN = 0.05


def series(values):
    return [
        Point(f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}T01:00:00+00:00", value) for day, value in enumerate(values)
    ]


def found(values, kind="perplexity", **more):
    alarm = drift(series(values), MARGIN, kind, **more)
    return alarm.kind if alarm else None


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([20.0], None),
        ([20.0] * 30, None),
        ([20.0, 20.3, 20.6, 20.7, 21.1], "drift"),  # 5.5 % in steps of at most 1.9 %
        ([20.0, 20.3, 20.6, 20.7, 20.9], None),  # 4.5 %
        ([20.0, 20.9, 21.8], "drift"),
        ([20.0, 20.0, 22.0, 22.0], "step"),
        ([20.0, 20.0, 22.0, 20.0], None),  # it came back
        ([20.0, 22.0, 18.0, 20.2], None),
        ([22.0, 20.0, 19.0, 18.0], None),  # it gets better
        ([20.0 * 1.003**i for i in range(10)], "trend"),  # 2.7 %
        ([20.0 * 1.003**i for i in range(7)], None),  # 1.8 %, and too few runs
        ([20.0 * 1.002**i for i in range(10)], None),  # 1.8 %, less than half of the margin
        ([20.0] * 10 + [20.6] * 10, None),  # one step within the margin
        ([20.0, math.inf], "step"),
        ([20.0, math.inf, 20.0], None),
        ([20.0, 20.1, math.nan], None),
    ],
)
def test_perplexity(values, kind):
    assert found(values) == kind


def test_scores_are_compared_as_differences_and_in_their_own_direction():
    falling = [0.70, 0.68, 0.66, 0.64]
    assert found(falling, "zero-shot") == "drift"
    assert found(falling, "zero-shot", higher_is_better=False) is None
    assert found(falling[::-1], "zero-shot", higher_is_better=False) == "drift"
    assert found([0.70, 0.675, 0.65], "zero-shot") is None  # ten of two hundred items: the margin, and no more
    assert found([0.70, 0.65, 0.60], "zero-shot") == "drift"  # neither step is more than the margin


def test_relative_figures_of_a_lossless_start():
    assert found([0.0, -0.02, -0.04, -0.06], "zero-shot") == "drift"
    assert found([1.0, 1.02, 1.04, 1.06]) == "drift"


def test_noise_that_was_measured_is_no_drift():
    values = [20.0, 20.5, 21.1]  # 5.35 % in all, 0.0535 nats
    assert found(values) == "drift"
    assert found(values, noise=0.0125) == "drift"  # three times the root of two times 0.0125: 0.0530 nats
    assert found(values, noise=0.0128) is None  # 0.0543 nats


def test_noise_around_a_level_hardly_ever_raises_an_alarm():
    """Of a thousand series whose noise is a fifth of the margin, at most half a per cent."""
    rng = np.random.default_rng(20241107)
    for runs in (3, 8, 20):
        alarms = sum(found(20 * np.exp(rng.normal(0, 0.01, runs))) is not None for _ in range(1000))
        assert alarms <= 5


def test_a_drift_under_noise_is_found():
    rng = np.random.default_rng(20241107)
    hits = 0
    for _ in range(200):
        walk = np.linspace(0, 1.5 * math.log(1.05), 12) + rng.normal(0, 0.002, 12)
        hits += found(20 * np.exp(walk)) in ("drift", "trend")
    assert hits == 200


def test_the_alarm_says_figures_dates_and_runs():
    alarm = drift(series([20.0, 20.3, 20.6, 20.7, 21.1]), MARGIN, "perplexity")
    assert alarm.message == (
        "20 (2026-01-01) → 21.1 (2026-01-05) over 5 runs: 5.50 % worse in all, beyond the accepted 5.00 %, though no "
        "single run lost that much"
    )
    assert (alarm.runs, alarm.first, alarm.last) == (5, 20.0, 21.1)
    assert alarm.loss == pytest.approx(math.log(21.1 / 20))
    assert alarm.margin == pytest.approx(math.log(1.05))
    assert (alarm.since[:10], alarm.until[:10]) == ("2026-01-01", "2026-01-05")


def test_a_step_names_the_run_that_made_it():
    alarm = drift(series([0.7, 0.7, 0.6, 0.61]), MARGIN, "zero-shot")
    assert alarm.kind == "step"
    assert alarm.until[:10] == "2026-01-03"
    assert "0.7 (2026-01-02) → 0.6 (2026-01-03)" in alarm.message
    assert "9.00 pt worse" in alarm.message


def test_a_trend_gives_its_p_value():
    """Ten runs in perfect order: one of 10! orders."""
    alarm = drift(series([20.0 * 1.003**i for i in range(10)]), MARGIN, "perplexity")
    assert alarm.p == pytest.approx(1 / math.factorial(10))
    assert "p = 2.8e-07" in alarm.message
