"""Simulated comparisons with a known true loss, and the rules that judge them, over many replicates at once.

Verdicts are arrays of `PASS`, `FAIL` and `OPEN` (undecided), one a replicate. The two rules of this project call the
functions that judge real runs; the others are what else is done with the same figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from superweight.statistics.confidence_sequences import log_capital, t_half_width
from superweight.statistics.noninferiority import ErrorBudget
from superweight.statistics.proportions import most_lost
from superweight.statistics.skewness import adjusted, skew_guarded_t

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Verdicts = npt.NDArray[np.int8]

PASS, OPEN, FAIL = 1, 0, -1


class Scores(NamedTuple):
    """0/1 scores of many replicates, cumulative at every look: each (replicates, looks)."""

    gained: Counts
    lost: Counts
    right: Counts  # of the baseline
    n: Counts  # items at each look; (looks,)


class Windows(NamedTuple):
    """Negative log-likelihoods a window of many replicates: each (replicates, windows), nats a token."""

    baseline: Floats
    candidate: Floats


class Sequential(NamedTuple):
    """What a rule that may stop early decides, and after which share of the items."""

    verdicts: Verdicts
    spent: Floats


@dataclass(frozen=True)
class Truth:
    """A pair of models: how often they differ, and by how much the candidate is worse."""

    loss: float
    discordance: float
    accuracy: float = 0.6  # of the baseline

    def cells(self) -> list[float]:
        """Probabilities of: gained, lost, both right, both wrong."""
        gained, lost = (self.discordance - self.loss) / 2, (self.discordance + self.loss) / 2
        both = min(max(self.accuracy - lost, 0.0), 1 - gained - lost)
        return [max(gained, 0.0), lost, both, max(1 - max(gained, 0.0) - lost - both, 0.0)]


def draw_scores(rng: np.random.Generator, replicates: int, n: int, truth: Truth, every: int) -> Scores:
    """Items drawn one by one, independently, counted after each `every` items and at the end."""
    steps = np.diff([*range(0, n, every), n])
    counts = np.stack([rng.multinomial(step, truth.cells(), size=replicates) for step in steps], axis=1)
    gained, lost, both, _ = np.moveaxis(counts.cumsum(axis=1), 2, 0)
    return Scores(gained, lost, lost + both, steps.cumsum())


def exact(scores: Scores, margin: float, alpha: float) -> Verdicts:
    """This project's analysis of all planned items."""
    gained, lost, n = scores.gained[:, -1], scores.lost[:, -1], int(scores.n[-1])
    discordant, place = np.unique(gained + lost, return_inverse=True)
    passing = np.array([_most_lost(int(s), n, margin, alpha) for s in discordant])[place]
    failing = np.array([_most_lost(int(s), n, -margin, alpha) for s in discordant])[place]
    return _verdicts(lost <= passing, gained <= failing)


def sequential(scores: Scores, margin: float, design: ErrorBudget) -> Sequential:
    """This project's analysis after every look, stopping at the first that decides."""
    n = int(scores.n[-1])
    verdicts = exact(scores, margin, design.alpha * design.share(n, n))
    spent = np.ones(len(verdicts))
    undecided = np.arange(len(verdicts))
    level = -math.log(design.alpha * design.early_share)
    for look, items in enumerate(scores.n[:-1]):
        gained, lost = scores.gained[undecided, look], scores.lost[undecided, look]
        found = _verdicts(
            log_capital(gained, lost, items, margin) >= level, log_capital(lost, gained, items, -margin) >= level
        )
        decided = found != OPEN
        verdicts[undecided[decided]] = found[decided]
        spent[undecided[decided]] = items / n
        undecided = undecided[~decided]
    return Sequential(verdicts, spent)


def tolerance(scores: Scores, share: float = 0.05) -> Verdicts:
    """Fail if the score drops by more than a share of the baseline's; pass otherwise."""
    drop = scores.lost[:, -1] - scores.gained[:, -1]
    failed = drop > share * scores.right[:, -1]
    return _verdicts(~failed, failed)


def unpaired(scores: Scores) -> Verdicts:
    """Fail if a two-sided z test of two independent proportions finds a drop at 5 %; pass otherwise."""
    n = int(scores.n[-1])
    before = scores.right[:, -1] / n
    after = before + (scores.gained[:, -1] - scores.lost[:, -1]) / n
    pooled = (before + after) / 2
    error = np.sqrt(np.maximum(pooled * (1 - pooled) * 2 / n, 1e-300))
    failed = (before - after) / error > special.ndtri(0.975)
    return _verdicts(~failed, failed)


def wald(scores: Scores, margin: float, alpha: float) -> Verdicts:
    """The plain normal interval of a paired difference against the margin."""
    n = int(scores.n[-1])
    loss = (scores.lost[:, -1] - scores.gained[:, -1]) / n
    discordance = (scores.lost[:, -1] + scores.gained[:, -1]) / n
    half = -special.ndtri(alpha) * np.sqrt((discordance - loss**2) / n)
    return _verdicts(loss + half <= margin, loss - half > margin)


def draw_windows(
    rng: np.random.Generator, replicates: int, windows: int, loss: float, pairs: Windows | None, spread: float = 0.02
) -> Windows:
    """Windows with a known mean loss.

    Args:
        rng: source of randomness.
        replicates: runs.
        windows: windows a run.
        loss: true mean loss, nats a token.
        pairs: measured windows, (1, measured), to be drawn with replacement, every candidate's shifted by the same
            amount; normal ones if None.
        spread: standard deviation of the losses of normal windows.

    """
    size = (replicates, windows)
    if pairs is None:
        baseline = rng.normal(3.0, 0.35, size)
        return Windows(baseline, baseline + rng.normal(loss, spread, size))
    chosen = rng.integers(pairs.baseline.size, size=size)
    differences = (pairs.candidate - pairs.baseline)[0]
    baseline = pairs.baseline[0][chosen]
    return Windows(baseline, baseline + (differences - differences.mean() + loss)[chosen])


def student(windows: Windows, margin: float, alpha: float) -> Verdicts:
    """This project's analysis of all planned windows: Student's t on the paired losses, guarded against skewness."""
    low, high, n = (column[..., -1] for column in _guarded_t(windows, margin))
    return _verdicts(special.stdtr(n - 1, low) <= alpha, special.stdtr(n - 1, high) <= alpha)


def sequential_t(windows: Windows, margin: float, design: ErrorBudget) -> Sequential:
    """This project's analysis after every window, stopping at the first that decides."""
    verdicts = student(windows, margin, design.alpha * (1 - design.early_share))
    low, high, n = (column[..., :-1] for column in _guarded_t(windows, margin))
    reach = np.array([t_half_width(int(items), design.alpha * design.early_share) for items in n])
    found = _verdicts(low <= -reach, high <= -reach)
    decided = (found != OPEN).any(axis=1)
    first = (found != OPEN).argmax(axis=1)
    spent = np.where(decided, n[first] / windows.baseline.shape[1], 1.0)
    verdicts = np.where(decided, found[np.arange(len(found)), first], verdicts)
    return Sequential(verdicts.astype(np.int8), spent)


def tolerance_t(windows: Windows, margin: float) -> Verdicts:
    """Fail if perplexity rises by more than the margin; pass otherwise."""
    failed = (windows.candidate - windows.baseline).mean(axis=1) > margin
    return _verdicts(~failed, failed)


def unpaired_t(windows: Windows) -> Verdicts:
    """Fail if a two-sided test of two independent means finds a rise at 5 %; pass otherwise."""
    n = windows.baseline.shape[1]
    variance = windows.baseline.var(axis=1, ddof=1) + windows.candidate.var(axis=1, ddof=1)
    t = (windows.candidate - windows.baseline).mean(axis=1) / np.sqrt(variance / n)
    failed = t > special.stdtrit(2 * n - 2, 0.975)
    return _verdicts(~failed, failed)


def plain(windows: Windows, margin: float, alpha: float, *, normal: bool) -> Verdicts:
    """The paired interval as it is in textbooks against the margin: the normal one, or Student's t."""
    moments = _moments(windows, margin)
    t, n = moments.t[:, -1], int(moments.n[-1])
    reach = -special.ndtri(alpha) if normal else -special.stdtrit(n - 1, alpha)
    return _verdicts(t <= -reach, t >= reach)


class _Moments(NamedTuple):
    t: Floats  # of the losses against the margin; (replicates, looks)
    skewness: Floats
    n: Counts  # windows at each look, from two on; (looks,)


def _moments(windows: Windows, margin: float) -> _Moments:
    excess = windows.candidate - windows.baseline - margin
    n = np.arange(2, excess.shape[1] + 1)
    first, second, third = (np.cumsum(excess**power, axis=1)[:, 1:] / n for power in (1, 2, 3))
    variance = np.maximum(second - first**2, 1e-30)
    central = third - 3 * first * second + 2 * first**3
    skewness = np.where(n > 2, adjusted(variance, central, np.maximum(n, 3)), 0.0)
    # No sample is more skewed than √n; one that was drawn thrice from a few measured windows is so by rounding.
    return _Moments(first / np.sqrt(variance / (n - 1)), np.clip(skewness, -np.sqrt(n), np.sqrt(n)), n)


def _guarded_t(windows: Windows, margin: float) -> tuple[Floats, Floats, Counts]:
    """The statistics that are to be low for a PASS and for a FAIL, at every look; and the looks."""
    moments = _moments(windows, margin)
    low = skew_guarded_t(moments.t, moments.skewness, moments.n)
    return low, skew_guarded_t(-moments.t, -moments.skewness, moments.n), moments.n


def _verdicts(passed: npt.NDArray[np.bool_], failed: npt.NDArray[np.bool_]) -> Verdicts:
    return np.where(passed, PASS, np.where(failed, FAIL, OPEN)).astype(np.int8)


@cache
def _most_lost(discordant: int, n: int, margin: float, alpha: float) -> int:
    return most_lost(discordant, n, margin, alpha)
