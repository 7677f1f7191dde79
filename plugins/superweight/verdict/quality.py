"""Quality gates: a candidate's figures against the uncompressed model's on the same windows or items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from superweight.cards.gate import GateCard
from superweight.evidence.measured import Failure, Perplexity, Verdict, ZeroShot
from superweight.statistics.interval import Interval
from superweight.statistics.noninferiority import ErrorBudget, PairedTest, compare_means, compare_scores, compare_share
from superweight.statistics.power import detectable_loss, n_to_decide
from superweight.verdict.amounts import as_percent
from superweight.verdict.chance import nothing_to_lose
from superweight.verdict.flips import compared, flips
from superweight.verdict.margins import loss_margin
from superweight.verdict.result import GateResult, Kind, Oddity, infra_gate

_BROKEN = "the uncompressed model itself gives no number, so nothing can be compared with it"
_CERTAIN: dict[str, Any] = {"verdict": "REGRESSION", "p_pass": 1.0, "p_regression": 0.0, "needed": None}
"""Of a gate that failed for a reason that is no matter of chance."""


def baseline_perplexity(corpus: str, figure: Perplexity) -> GateResult:
    """The uncompressed model's own figure: it has nothing to be compared with, but it must be a number."""
    problem = unsound(figure)
    message = f"perplexity on {corpus} {figure.value:.4g} over {figure.windows} windows of {figure.window} tokens"
    if problem is not None:
        message += f": {problem.message}"
    return GateResult(
        gate=f"perplexity:{corpus}",
        kind="perplexity",
        verdict="PASS" if problem is None else "INFRA",
        reason="" if problem is None else problem.reason,
        metric="perplexity",
        higher_is_better=False,
        value=figure.value,
        n=len(figure.nll),
        planned=figure.planned or len(figure.nll),
        message=message,
        details={"protocol": figure.protocol, "window": figure.window, "origin": figure.origin},
    )


def baseline_zero_shot(task: str, figure: ZeroShot) -> GateResult:
    """The uncompressed model's own figure; one that is no better than guessing is no figure to lose from."""
    sound = math.isfinite(figure.value) and not figure.unanswered
    nothing = nothing_to_lose(figure) if sound else ""
    gate = GateResult(
        gate=f"zero-shot:{task}",
        kind="zero-shot",
        verdict="PASS" if sound else "INFRA",
        reason="" if sound else "non-finite",
        metric=figure.metric,
        higher_is_better=figure.higher_is_better,
        value=figure.value,
        n=figure.n,
        planned=figure.planned or figure.n,
        message=f"{figure.metric} on {task} {figure.value:.4f} over {figure.n} items" + _unanswered(figure),
        details={"data": figure.data},
    )
    return _uninformative(gate, nothing) if nothing else gate


def unsound(figure: Perplexity) -> Failure | None:
    """Why nothing can be compared with the uncompressed model's perplexity, if so."""
    if not (math.isfinite(figure.value) and all(map(math.isfinite, figure.nll))):
        return Failure(stage="baseline", reason="non-finite", message=_BROKEN)
    if figure.is_guessing:
        told = (
            f"the uncompressed model's perplexity of {figure.value:.4g} is no better than guessing among its "
            f"{figure.vocabulary} tokens, so it is no language model of this text and nothing can be compared with it"
        )
        return Failure(stage="baseline", reason="no-language-model", message=told)
    return None


def if_a_loss_could_show(gate: GateResult, card: GateCard, baseline: ZeroShot) -> GateResult:
    """A gate of scores, undecided where not even a model that only guesses could be told from the baseline."""
    if gate.verdict in ("INFRA", "REGRESSION"):
        return gate
    nothing = nothing_to_lose(baseline, card.margin)
    return _uninformative(gate, nothing) if nothing else gate


def _uninformative(gate: GateResult, nothing: str) -> GateResult:
    message = f"{gate.message}; cannot show a loss: {nothing}"
    return gate.model_copy(
        update={"verdict": "INCONCLUSIVE", "informs": False, "message": message, "needed": None, "detectable": None}
    )


def judge_perplexity(
    card: GateCard, corpus: str, candidate: Perplexity, baseline: Perplexity, design: ErrorBudget
) -> GateResult:
    """Perplexity ratio to the uncompressed model, paired by window.

    The loss of a window is the difference of its mean nll, whose mean is the logarithm of the ratio. A figure that is
    not finite is a finding about the model, so it is a regression, unless the uncompressed model gives none either.
    """
    ours, theirs = candidate.by_window(candidate.nll), baseline.by_window(baseline.nll)
    if _other_text(candidate, baseline) or not ours or not ours.keys() <= theirs.keys():
        return _unpaired("perplexity", corpus, "the two models were not scored on the same tokens")
    if (problem := unsound(baseline)) is not None:
        return infra_gate(f"perplexity:{corpus}", "perplexity", problem)
    losses = [ours[window] - theirs[window] for window in ours]
    planned = candidate.planned or len(losses)
    comparison = compare_means(losses, planned=planned, margin=loss_margin(card), design=design, places=list(ours))
    before = _exp(math.fsum(theirs[window] for window in ours) / len(ours))
    low, high = (_expm1(end) for end in comparison.interval)
    ratio = candidate.value / before - 1
    details: dict[str, Any] = {"protocol": candidate.protocol, "window": candidate.window, "origin": candidate.origin}
    for name, values in (("kl", candidate.kl), ("agreement", candidate.agreement)):
        if values:
            details[name] = math.fsum(values) / len(values)
    apart = ""
    if {"kl", "agreement"} <= details.keys():
        apart = f"; KL {details['kl']:.3g} nats a token, top-1 agreement {details['agreement']:.1%}"
    return _gate(
        "perplexity", corpus, card, comparison, design,
        metric="perplexity",
        higher_is_better=False,
        value=candidate.value,
        baseline=before,
        difference=ratio,
        interval=(low, high),
        detectable=_expm1(_detectable(comparison, loss_margin(card), design)),
        details=details,
        message=(
            f"perplexity on {corpus} {before:.4g} → {candidate.value:.4g}: {as_percent(ratio)} "
            f"[{as_percent(low)}, {as_percent(high)}] "
            f"over {_of(comparison)} windows of {candidate.window} tokens; accepted up to +{card.margin:.2%}{apart}"
        ),
    )  # fmt: skip


def judge_zero_shot(
    card: GateCard, task: str, candidate: ZeroShot, baseline: ZeroShot, design: ErrorBudget
) -> GateResult:
    """The task's metric against the uncompressed model's, paired by item.

    Scores of 0 and 1 get exact tests of paired proportions, others those of paired means. Which of the two must not
    depend on how many items are in, so all of the baseline's scores are looked at.
    """
    ours, theirs = candidate.scores(), baseline.scores()
    if not ours or not ours.keys() <= theirs.keys():
        return _unpaired("zero-shot", task, _other_items(candidate, baseline))
    if baseline.unanswered or not all(map(math.isfinite, theirs.values())):
        return _unfit("zero-shot", task, "non-finite", _BROKEN)
    if not (_is_mean(candidate, ours) and _is_mean(baseline, theirs)):
        found = f"{candidate.metric} is not the mean of its items' values, so that items say nothing about it"
        return _unfit("zero-shot", task, "unsupported", f"{found}: gate a metric that is, such as acc")
    sign = -1 if candidate.higher_is_better else 1
    losses = [sign * (ours[item] - theirs[item]) for item in ours]
    lost, gained = sum(loss > 0 for loss in losses), sum(loss < 0 for loss in losses)
    planned = candidate.planned or len(losses)
    if card.margin < 1 and all(score in (0.0, 1.0) for score in (*ours.values(), *theirs.values())):
        comparison = compare_scores(gained, lost, len(losses), planned=planned, margin=card.margin, design=design)
    else:
        comparison = compare_means(losses, planned=planned, margin=card.margin, design=design)
    before = math.fsum(theirs[item] for item in ours) / len(ours)
    ends = sorted(sign * end for end in comparison.interval)
    gate = _gate(
        "zero-shot", task, card, comparison, design,
        metric=candidate.metric,
        higher_is_better=candidate.higher_is_better,
        value=candidate.value,
        baseline=before,
        difference=sign * comparison.loss,
        interval=(ends[0], ends[1]),
        detectable=sign * _detectable(comparison, card.margin, design),
        details={"gained": gained, "lost": lost, "data": candidate.data},
        message=(
            f"{candidate.metric} on {task} {before:.4f} → {candidate.value:.4f}: {sign * comparison.loss:+.4f} "
            f"[{ends[0]:+.4f}, {ends[1]:+.4f}] over {_of(comparison)} items ({lost} lost, {gained} gained); accepted "
            f"{'down to -' if candidate.higher_is_better else 'up to +'}{card.margin:.4f}" + _unanswered(candidate)
        ),
    )  # fmt: skip
    return gate.model_copy(update=_CERTAIN) if candidate.unanswered else gate


def judge_divergence(card: GateCard, corpus: str, candidate: Perplexity, design: ErrorBudget) -> GateResult:
    """Mean KL divergence from the uncompressed model's next-token distribution, nats a token."""
    return _share_or_mean(
        "divergence", corpus, card, design, candidate.kl, candidate,
        metric="kl", what="KL divergence from the baseline", unit=" nats a token",
    )  # fmt: skip


def judge_agreement(card: GateCard, corpus: str, candidate: Perplexity, design: ErrorBudget) -> GateResult:
    """Share of tokens that the two models do not rank first alike."""
    apart = [1 - share for share in candidate.agreement]
    return _share_or_mean(
        "agreement", corpus, card, design, apart, candidate,
        metric="top-1 disagreement", what="tokens that the two models do not rank first alike", unit="",
    )  # fmt: skip


def judge_flips(card: GateCard, task: str, candidate: ZeroShot, baseline: ZeroShot, design: ErrorBudget) -> GateResult:
    """Share of items whose chosen answer is another, right or wrong.

    Items that do not tell their answer are left out, and no more of them are to come once all have been asked.
    """
    if not candidate.scores().keys() <= baseline.scores().keys():
        return _unpaired("flips", task, _other_items(candidate, baseline))
    n, changed = compared(baseline, candidate), len(flips(baseline, candidate))
    if not n:
        return _unpaired("flips", task, "no item has an answer under both models")
    to_come = max(0, candidate.planned - len(candidate.items))
    comparison = compare_share(changed, n, planned=n + to_come, margin=card.margin, design=design)
    low, high = comparison.interval
    return _gate(
        "flips", task, card, comparison, design,
        metric="flips",
        higher_is_better=False,
        value=comparison.loss,
        baseline=0.0,
        difference=comparison.loss,
        interval=(low, high),
        detectable=_detectable(comparison, card.margin, design),
        message=(
            f"{changed} answers on {task} changed: {comparison.loss:.2%} [{low:.2%}, {high:.2%}] over "
            f"{_of(comparison)} items; accepted up to {card.margin:.2%}"
        ),
    )  # fmt: skip


def _share_or_mean(
    kind: Kind, of: str, card: GateCard, design: ErrorBudget, values: Sequence[float], figure: Perplexity, *,
    metric: str, what: str, unit: str,
) -> GateResult:  # fmt: skip
    if not values:
        return _unpaired(kind, of, "the recipe changes the head that both models are read with, or the figure is old")
    planned = max(len(values), figure.planned)
    places = figure.index or range(len(values))
    comparison = compare_means(values, planned=planned, margin=card.margin, design=design, places=places)
    low, high = comparison.interval
    return _gate(
        kind, of, card, comparison, design,
        metric=metric,
        higher_is_better=False,
        value=comparison.loss,
        baseline=0.0,
        difference=comparison.loss,
        interval=(low, high),
        detectable=_detectable(comparison, card.margin, design),
        details={"window": figure.window},
        message=(
            f"{what} on {of}: {comparison.loss:.4g}{unit} [{low:.4g}, {high:.4g}] over {_of(comparison)} windows; "
            f"accepted up to {card.margin:.4g}"
        ),
    )  # fmt: skip


def _gate(
    kind: Kind, of: str, card: GateCard, comparison: PairedTest, design: ErrorBudget, *, message: str, **figures: Any
) -> GateResult:
    """A gate with its verdict, before the other gates of the cell are looked at."""
    verdict: Verdict = "INCONCLUSIVE"
    if comparison.p_pass <= design.alpha:
        verdict = "PASS"
    elif comparison.p_regression <= design.alpha:
        verdict = "REGRESSION"
    margin = loss_margin(card)
    oddities = _oddities(kind, comparison.interval, margin)
    gate = GateResult(
        gate=f"{kind}:{of}",
        kind=kind,
        verdict=verdict,
        message=message,
        n=comparison.n,
        planned=comparison.planned,
        confidence=1 - 2 * design.alpha,
        alpha=design.alpha,
        margin=card.margin,
        p_pass=comparison.p_pass,
        p_regression=comparison.p_regression,
        method=comparison.method,
        needed=n_to_decide(comparison, margin=margin, alpha=design.alpha) if verdict == "INCONCLUSIVE" else None,
        flags=[oddity.text for oddity in oddities],
        oddities=oddities,
        card=card.id,
        why=card.why,
        **figures,
    )
    return _bounded(gate, card)


def _detectable(comparison: PairedTest, margin: float, design: ErrorBudget) -> float:
    """Of the whole plan: a measurement that stopped early would have gone on, had the loss been there."""
    return detectable_loss(replace(comparison, n=comparison.planned), margin=margin, alpha=design.alpha / design.family)


def _bounded(gate: GateResult, card: GateCard) -> GateResult:
    """With the card's bound on the figure itself, which is for these very items and this machine, so needs no test.

    Part of the items cannot be held against it, and so cannot pass.
    """
    if card.value is None or gate.value is None:
        return gate
    if gate.n != gate.planned:
        message = f"{gate.message}; the bound of {card.value:g} on the figure itself is for all {gate.planned}"
        awaited = {"verdict": "INCONCLUSIVE", "p_pass": 1.0, "message": message, "needed": gate.planned}
        return gate.model_copy(update=awaited) if gate.verdict == "PASS" else gate
    past = gate.value < card.value if gate.higher_is_better else gate.value > card.value
    if not past:
        return gate
    side = "below" if gate.higher_is_better else "above"
    message = f"{gate.message}; the figure itself is {side} its bound of {card.value:g}"
    return gate.model_copy(update=_CERTAIN | {"message": message})


def _oddities(kind: Kind, loss: Interval, margin: float) -> list[Oddity]:
    if kind in ("perplexity", "zero-shot") and loss.high < -margin:
        sentence = "too good to be true: better than the uncompressed model by more than the margin"
        return [Oddity(kind="too-good", text=sentence)]
    return []


def _unpaired(kind: Kind, of: str, found: str) -> GateResult:
    return _unfit(kind, of, "unpaired", f"{found}, so they cannot be compared")


def _unfit(kind: Kind, of: str, reason: str, message: str) -> GateResult:
    gate = f"{kind}:{of}"
    return infra_gate(gate, kind, Failure(stage=gate, reason=reason, message=message))


def _other_items(candidate: ZeroShot, baseline: ZeroShot) -> str:
    return f"the two models were not asked the same items ({len(candidate.items)} and {len(baseline.items)})"


def _is_mean(figure: ZeroShot, scores: Mapping[str, float]) -> bool:
    """Whether the metric is its items' mean; lm-eval's `perplexity` is exp(−mean), so better items make it smaller."""
    mean = math.fsum(scores.values()) / len(scores) if all(map(math.isfinite, scores.values())) else math.nan
    return not math.isfinite(mean) or math.isclose(mean, figure.value, rel_tol=1e-6, abs_tol=1e-9)


def _other_text(one: Perplexity, other: Perplexity) -> bool:
    return (one.tokens_sha256, one.window) != (other.tokens_sha256, other.window)


def _of(comparison: PairedTest) -> str:
    return f"{comparison.n} of {comparison.planned}" if comparison.stopped_early else str(comparison.n)


def _unanswered(figure: ZeroShot) -> str:
    return f"; {figure.unanswered} items got no finite log-likelihood" if figure.unanswered else ""


def _expm1(x: float) -> float:
    return math.expm1(x) if x < 700 else math.inf


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
