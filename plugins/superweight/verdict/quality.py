"""Quality gates: perplexity and zero-shot metrics against the uncompressed model, paired."""

from __future__ import annotations

import math

from superweight.cards.gate import GateCard
from superweight.evidence.measured import Failure, Perplexity, Verdict, ZeroShot
from superweight.verdict.intervals import Interval, paired_mean_interval, tango_interval
from superweight.verdict.result import GateResult, infra_gate


def baseline_perplexity(corpus: str, figure: Perplexity) -> GateResult:
    """The uncompressed model's own figure: it has nothing to be compared with, but it must be a number."""
    finite = math.isfinite(figure.value)
    message = f"perplexity on {corpus} {figure.value:.4g} over {figure.windows} windows of {figure.window} tokens"
    if not finite:
        message += ": the uncompressed model itself is broken, so nothing can be compared with it"
    return GateResult(
        gate=f"perplexity:{corpus}",
        kind="perplexity",
        verdict="PASS" if finite else "INFRA",
        metric="perplexity",
        value=figure.value,
        n=len(figure.nll),
        message=message,
        details={"protocol": figure.protocol, "window": figure.window, "origin": figure.origin},
    )


def baseline_zero_shot(task: str, figure: ZeroShot) -> GateResult:
    """The uncompressed model's own figure."""
    return GateResult(
        gate=f"zero-shot:{task}",
        kind="zero-shot",
        verdict="INFRA" if figure.unanswered else "PASS",
        metric=figure.metric,
        value=figure.value,
        n=figure.n,
        message=f"{figure.metric} on {task} {figure.value:.4f} over {figure.n} items" + _unanswered(figure),
        details={"data": figure.data},
    )


def judge_perplexity(card: GateCard, corpus: str, candidate: Perplexity, baseline: Perplexity) -> GateResult:
    """Perplexity ratio to the uncompressed model, paired by window.

    The interval is Student's t on the per-window differences of mean nll, exponentiated. A figure that is not finite is
    a finding about the model, so it is a regression.
    """
    same = (candidate.tokens_sha256, candidate.window) == (baseline.tokens_sha256, baseline.window)
    if not same or len(candidate.nll) != len(baseline.nll):
        failure = Failure(
            stage=f"perplexity:{corpus}",
            reason="unpaired",
            message="the two models were not scored on the same tokens, so they cannot be compared",
        )
        return infra_gate(f"perplexity:{corpus}", "perplexity", failure)
    differences = [c - b for c, b in zip(candidate.nll, baseline.nll, strict=True)]
    ratio = candidate.value / baseline.value - 1
    log_interval = paired_mean_interval(differences, card.confidence)
    interval = Interval(_expm1(log_interval.low), _expm1(log_interval.high))
    broken = not math.isfinite(candidate.value)
    verdict: Verdict = "REGRESSION" if broken else _compare(Interval(-interval.high, -interval.low), card.margin)
    return GateResult(
        gate=f"perplexity:{corpus}",
        kind="perplexity",
        verdict=verdict,
        metric="perplexity",
        value=candidate.value,
        baseline=baseline.value,
        difference=ratio,
        interval=(interval.low, interval.high),
        confidence=card.confidence,
        margin=card.margin,
        n=len(differences),
        why=card.why,
        details={"protocol": candidate.protocol, "window": candidate.window, "origin": candidate.origin},
        message=(
            f"perplexity on {corpus} {baseline.value:.4g} → {candidate.value:.4g}: {ratio:+.2%} "
            f"[{interval.low:+.2%}, {interval.high:+.2%}] over {len(differences)} windows of "
            f"{candidate.window} tokens; accepted up to +{card.margin:.2%}"
        ),
    )


def _expm1(x: float) -> float:
    return math.expm1(x) if x < 700 else math.inf


def judge_zero_shot(card: GateCard, task: str, candidate: ZeroShot, baseline: ZeroShot) -> GateResult:
    """The task's metric against the uncompressed model's, paired by item.

    Scores of 0 and 1 get Tango's score interval, others Student's t on the paired differences.
    """
    ours, theirs = candidate.scores(), baseline.scores()
    if ours.keys() != theirs.keys() or not ours:
        failure = Failure(
            stage=f"zero-shot:{task}",
            reason="unpaired",
            message=f"the two models were not asked the same items ({len(ours)} and {len(theirs)})",
        )
        return infra_gate(f"zero-shot:{task}", "zero-shot", failure)
    sign = 1 if candidate.higher_is_better else -1
    differences = [sign * (ours[item] - theirs[item]) for item in theirs]
    gained, lost = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    binary = all(score in (0.0, 1.0) for score in (*ours.values(), *theirs.values()))
    if binary:
        interval = tango_interval(gained, lost, len(differences), card.confidence)
    else:
        interval = paired_mean_interval(differences, card.confidence)
    mean = math.fsum(differences) / len(differences)
    return GateResult(
        gate=f"zero-shot:{task}",
        kind="zero-shot",
        verdict="REGRESSION" if candidate.unanswered else _compare(interval, card.margin),
        metric=candidate.metric,
        value=candidate.value,
        baseline=baseline.value,
        difference=mean,
        interval=(interval.low, interval.high),
        confidence=card.confidence,
        margin=card.margin,
        n=len(differences),
        why=card.why,
        details={"gained": gained, "lost": lost, "data": candidate.data},
        message=(
            f"{candidate.metric} on {task} {baseline.value:.4f} → {candidate.value:.4f}: {mean:+.4f} "
            f"[{interval.low:+.4f}, {interval.high:+.4f}] over {len(differences)} items "
            f"({lost} lost, {gained} gained); accepted down to -{card.margin:.4f}" + _unanswered(candidate)
        ),
    )


def _unanswered(figure: ZeroShot) -> str:
    return f"; {figure.unanswered} items got no finite log-likelihood" if figure.unanswered else ""


def _compare(interval: Interval, margin: float) -> Verdict:
    """Non-inferiority of a difference where positive is better."""
    if interval.low >= -margin:
        return "PASS"
    if interval.high < -margin:
        return "REGRESSION"
    return "INCONCLUSIVE"
