"""What Student's t says of paired losses, guarded against skewness, from scipy's statistics: figures to expect of a gate.

The side of the interval towards which losses are skewed is stretched by exp(skewness/√n), with three quarters of a
standard error added to the sample skewness.
"""

import math

from scipy import optimize, stats

from superweight.statistics.confidence_sequences import log_t_capital


def p_pass(losses, margin):
    """Against a loss of the margin or more."""
    return float(stats.t.cdf(cautious(*_statistics(losses, margin)), len(losses) - 1))


def p_regression(losses, margin):
    """Against a loss of the margin or less."""
    return p_pass([-loss for loss in losses], -margin)


def early_p_pass(losses, margin, share=0.2):
    """Before all items are in: one over the capital of the anytime-valid t test, by the share that is for it."""
    capital = float(log_t_capital(cautious(*_statistics(losses, margin)), len(losses)))
    return min(1.0, math.exp(-max(0.0, capital)) / share)


def early_p_regression(losses, margin, share=0.2):
    return early_p_pass([-loss for loss in losses], -margin, share)


def interval(losses, level=0.025):
    """Of the mean loss; misses it with this probability on either side."""
    n, mean, error, skewness = len(losses), math.fsum(losses) / len(losses), _error(losses), _skewness(losses)
    return mean - reach(n, level, -skewness) * error, mean + reach(n, level, skewness) * error


def reach(n, level, skewness=0.0):
    """Standard errors between the mean and a bound above it."""
    quantile = float(stats.t.isf(level, n - 1))
    return float(optimize.brentq(lambda t: cautious(-t, skewness, n) + quantile, -1e3, 1e3, xtol=1e-12))


def cautious(t, skewness, n):
    """A t statistic that is to be low, and is made higher if skewness may have made it low."""
    error = math.sqrt(6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3))) if n > 2 else 0.0
    r = max(skewness + 0.75 * error, 0.0) / math.sqrt(n)
    return t / math.exp(r) if t < 0 else t


def _statistics(losses, margin):
    return float(stats.ttest_1samp(losses, margin).statistic), _skewness(losses), len(losses)


def _skewness(losses):
    return float(stats.skew(losses, bias=False)) if len(losses) > 2 else 0.0


def _error(losses):
    return float(stats.sem(losses))
