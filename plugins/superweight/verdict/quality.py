"""Quality gates: a candidate's figures against the uncompressed model's on the same windows or items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from superweight.cards.gate import GateCard
from superweight.cards.gate_kinds import AGREEMENT, DIVERGENCE, FLIPS, PERPLEXITY, ZERO_SHOT, GateKind, gate_kind
from superweight.evidence.measured import Failure, Perplexity, Verdict, ZeroShot
from superweight.statistics.averages import finite, mean
from superweight.statistics.interval import Interval
from superweight.statistics.noninferiority import ErrorBudget, PairedTest, compare_means, compare_share
from superweight.statistics.power import detectable_loss, n_to_decide
from superweight.verdict.chance import nothing_to_lose
from superweight.verdict.flips import compared, flips
from superweight.verdict.kinds import (
    IN_MESSAGES,
    Change,
    accepted_text,
    change_of,
    change_text,
    figure_text,
    interval_text,
    loss_margin,
    scale_of,
)
from superweight.verdict.paired_figure import PairedFigure
from superweight.verdict.result import GateResult, Oddity, infra_gate

_BROKEN = "the uncompressed model itself gives no number, so nothing can be compared with it"
_CERTAIN: dict[str, Any] = {"verdict": "REGRESSION", "p_pass": 1.0, "p_regression": 0.0, "needed": None}
"""Of a gate that failed for a reason that is no matter of chance."""


def baseline_perplexity(corpus: str, figure: Perplexity) -> GateResult:
    """The uncompressed model's own figure: it has nothing to be compared with, but it must be a number."""
    problem = unsound(figure)
    shown = figure_text(figure.value, "perplexity")
    message = f"perplexity on {corpus} {shown} over {figure.windows} windows of {figure.window} tokens"
    if problem is not None:
        message += f": {problem.message}"
    return GateResult(
        gate=f"{PERPLEXITY.name}:{corpus}",
        kind=PERPLEXITY.name,
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
        gate=f"{ZERO_SHOT.name}:{task}",
        kind=ZERO_SHOT.name,
        verdict="PASS" if sound else "INFRA",
        reason="" if sound else "non-finite",
        metric=figure.metric,
        higher_is_better=figure.higher_is_better,
        value=figure.value,
        n=figure.n,
        planned=figure.planned or figure.n,
        message=f"{figure.metric} on {task} {figure_text(figure.value, figure.metric, digits=4)} over {figure.n} items"
        + _unanswered(figure),
        details={"data": figure.data},
    )
    return _uninformative(gate, nothing) if nothing else gate


def unsound(figure: Perplexity) -> Failure | None:
    """Why nothing can be compared with the uncompressed model's perplexity, if so."""
    if not finite((figure.value, *figure.nll)):
        return Failure(stage="baseline", reason="non-finite", message=_BROKEN)
    if figure.is_guessing:
        told = (
            f"the uncompressed model's perplexity of {figure.value:.4g} is no better than guessing among its "
            f"{figure.vocabulary} tokens, so it is no language model of this text and nothing can be compared with it"
        )
        return Failure(stage="baseline", reason="no-language-model", message=told)
    return None


def _uninformative(gate: GateResult, nothing: str) -> GateResult:
    message = f"{gate.message}; cannot show a loss: {nothing}"
    return gate.model_copy(
        update={"verdict": "INCONCLUSIVE", "informs": False, "message": message, "needed": None, "detectable": None}
    )


def judge_perplexity(
    card: GateCard, corpus: str, candidate: Perplexity, baseline: Perplexity, budget: ErrorBudget
) -> GateResult:
    """Perplexity ratio to the uncompressed model, paired by window.

    The loss of a window is the difference of its mean nll, whose mean is the logarithm of the ratio. A figure that is
    not finite is a finding about the model, so it is a regression, unless the uncompressed model gives none either.
    """
    before, after = baseline.by_window(baseline.nll), candidate.by_window(candidate.nll)
    if _other_text(candidate, baseline) or not after or not after.keys() <= before.keys():
        return _unpaired(PERPLEXITY, corpus, "the two models were not scored on the same tokens")
    if (problem := unsound(baseline)) is not None:
        return infra_gate(f"{PERPLEXITY.name}:{corpus}", PERPLEXITY.name, problem)
    figure = PairedFigure.of_windows(corpus, candidate.window, before, after)
    details: dict[str, Any] = {"protocol": candidate.protocol, "window": candidate.window, "origin": candidate.origin}
    for name, values in (("kl", candidate.kl), ("agreement", candidate.agreement)):
        if values:
            details[name] = math.fsum(values) / len(values)
    apart = ""
    if {"kl", "agreement"} <= details.keys():
        apart = f"; KL {details['kl']:.3g} nats a token, top-1 agreement {details['agreement']:.1%}"
    return _of_pair(card, figure, candidate.value, candidate.planned, budget, details=details, note=apart)


def judge_answers(
    card: GateCard, task: str, candidate: ZeroShot, baseline: ZeroShot, budget: ErrorBudget
) -> GateResult:
    """As `judge_zero_shot`, and no PASS where not even a model that only guesses could be told from the baseline."""
    gate = judge_zero_shot(card, task, candidate, baseline, budget)
    if gate.verdict in ("INFRA", "REGRESSION"):
        return gate
    nothing = nothing_to_lose(baseline, card.margin)
    return _uninformative(gate, nothing) if nothing else gate


def judge_zero_shot(
    card: GateCard, task: str, candidate: ZeroShot, baseline: ZeroShot, budget: ErrorBudget
) -> GateResult:
    """The task's metric against the uncompressed model's, paired by item.

    Scores of 0 and 1 get exact tests of paired proportions, others those of paired means. Which of the two must not
    depend on how many items are in, so all of the baseline's scores are looked at.
    """
    before, after = baseline.scores(), candidate.scores()
    if not after or not after.keys() <= before.keys():
        return _unpaired(ZERO_SHOT, task, _other_items(candidate, baseline))
    if baseline.unanswered or not finite(before.values()):
        return _unfit(ZERO_SHOT, task, "non-finite", _BROKEN)
    if not (_is_mean(candidate, after) and _is_mean(baseline, before)):
        found = f"{candidate.metric} is not the mean of its items' values, so that items say nothing about it"
        return _unfit(ZERO_SHOT, task, "unsupported", f"{found}: gate a metric that is, such as acc")
    figure = PairedFigure.of_items(task, candidate.metric, before, after, higher_is_better=candidate.higher_is_better)
    details = {"gained": figure.gained, "lost": figure.lost, "data": candidate.data}
    note = _unanswered(candidate)
    gate = _of_pair(card, figure, candidate.value, candidate.planned, budget, details=details, note=note)
    return gate.model_copy(update=_CERTAIN) if candidate.unanswered else gate


def judge_divergence(
    card: GateCard, corpus: str, candidate: Perplexity, baseline: Perplexity, budget: ErrorBudget
) -> GateResult:
    """Mean KL divergence from the uncompressed model's next-token distribution, nats a token."""
    what = f"KL divergence from the baseline on {corpus}"
    return _of_windows(DIVERGENCE, card, corpus, candidate, baseline, budget, candidate.kl, metric="kl", what=what)


def judge_agreement(
    card: GateCard, corpus: str, candidate: Perplexity, baseline: Perplexity, budget: ErrorBudget
) -> GateResult:
    """Share of tokens that the two models do not rank first alike."""
    apart = [1 - share for share in candidate.agreement]
    what = f"tokens that the two models do not rank first alike on {corpus}"
    return _of_windows(
        AGREEMENT, card, corpus, candidate, baseline, budget, apart, metric="top-1 disagreement", what=what
    )


def judge_flips(card: GateCard, task: str, candidate: ZeroShot, baseline: ZeroShot, budget: ErrorBudget) -> GateResult:
    """Share of items whose chosen answer is another, right or wrong.

    Items that do not tell their answer are left out, and no more of them are to come once all have been asked.
    """
    if not candidate.scores().keys() <= baseline.scores().keys():
        return _unpaired(FLIPS, task, _other_items(candidate, baseline))
    n, changed = compared(baseline, candidate), len(flips(baseline, candidate))
    if not n:
        return _unpaired(FLIPS, task, "no item has an answer under both models")
    to_come = max(0, candidate.planned - len(candidate.items))
    test = compare_share(changed, n, planned=n + to_come, margin=card.margin, design=budget)
    return loss_gate(card, task, test, budget, metric="flips", what=f"{changed} answers on {task} changed")


def loss_gate(
    card: GateCard,
    of: str,
    test: PairedTest,
    budget: ErrorBudget,
    *,
    metric: str,
    what: str,
    details: Mapping[str, Any] | None = None,
) -> GateResult:
    """A gate whose figure is itself a loss, such as a divergence: nothing would be 0, and less is better.

    Args:
        card: sets the margin.
        of: corpus or task.
        test: the loss against the margin.
        budget: by which it was tested.
        metric: what the figure is called.
        what: likewise, in the words that the message opens with.
        details: whatever else is to be kept with it.

    """
    kind = gate_kind(card.kind)
    scale = scale_of(kind, card.margin, test.loss)
    change = change_of(scale, test.loss, test.interval, higher_is_better=False)
    counted = f"{test.n} of {test.planned}" if test.stopped_early else str(test.n)
    message = (
        f"{what}: {change_text(scale, change.difference, IN_MESSAGES)}"
        f"{interval_text(scale, change.interval, IN_MESSAGES)} over {counted} {kind.items}; accepted up to "
        f"{accepted_text(scale, card.margin, higher_is_better=False)}"
    )
    return _gate(
        card, of, test, budget, change,
        metric=metric, higher_is_better=False, value=change.difference, baseline=0.0, details=details or {},
        message=message,
    )  # fmt: skip


def _of_windows(
    kind: GateKind, card: GateCard, corpus: str, candidate: Perplexity, baseline: Perplexity, budget: ErrorBudget,
    values: Sequence[float], *, metric: str, what: str,
) -> GateResult:  # fmt: skip
    """A gate of what each window of the candidate says beside the uncompressed model."""
    if (problem := unsound(baseline)) is not None:
        return infra_gate(f"{kind.name}:{corpus}", kind.name, problem)
    if not values:
        found = "the recipe changes the head that both models are read with, or the figure is old"
        return _unpaired(kind, corpus, found)
    planned, places = max(len(values), candidate.planned), candidate.index or range(len(values))
    test = compare_means(values, planned=planned, margin=loss_margin(card), design=budget, places=places)
    return loss_gate(card, corpus, test, budget, metric=metric, what=what, details={"window": candidate.window})


def _of_pair(
    card: GateCard, figure: PairedFigure, value: float, planned: int, budget: ErrorBudget, *,
    details: dict[str, Any], note: str,
) -> GateResult:  # fmt: skip
    """A gate of the candidate's figure beside the uncompressed model's on the same windows or items."""
    test = figure.test(card.margin, planned or len(figure.after), budget)
    baseline, change = figure.total(figure.before), figure.change(test.loss, test.interval)
    if figure.kind.scale == "ratio":
        change = change._replace(difference=value / baseline - 1)  # of what was reported, to its last digit
    return _gate(
        card, figure.of, test, budget, change,
        metric=figure.metric, higher_is_better=figure.higher_is_better, value=value, baseline=baseline, details=details,
        message=figure.sentence(baseline, value, change, planned=test.planned, margin=card.margin) + note,
    )  # fmt: skip


def _gate(
    card: GateCard,
    of: str,
    test: PairedTest,
    budget: ErrorBudget,
    change: Change,
    *,
    higher_is_better: bool,
    **more: Any,
) -> GateResult:
    """A gate with its verdict, before the other gates of the cell are looked at."""
    verdict: Verdict = "INCONCLUSIVE"
    if test.p_pass <= budget.alpha:
        verdict = "PASS"
    elif test.p_regression <= budget.alpha:
        verdict = "REGRESSION"
    margin = loss_margin(card)
    least = _detectable(test, margin, budget)
    oddities = _oddities(test.interval, margin)
    gate = GateResult(
        gate=f"{card.kind}:{of}",
        kind=card.kind,
        verdict=verdict,
        difference=change.difference,
        interval=change.interval,
        higher_is_better=higher_is_better,
        n=test.n,
        planned=test.planned,
        confidence=1 - 2 * budget.alpha,
        alpha=budget.alpha,
        margin=card.margin,
        p_pass=test.p_pass,
        p_regression=test.p_regression,
        method=test.method,
        detectable=change_of(scale_of(card.kind), least, (least, least), higher_is_better=higher_is_better).difference,
        needed=n_to_decide(test, margin=margin, alpha=budget.alpha) if verdict == "INCONCLUSIVE" else None,
        flags=[oddity.text for oddity in oddities],
        oddities=oddities,
        card=card.id,
        why=card.why,
        **more,
    )
    return _bounded(gate, card)


def _detectable(test: PairedTest, margin: float, budget: ErrorBudget) -> float:
    """Of the whole plan: a measurement that stopped early would have gone on, had the loss been there."""
    return detectable_loss(replace(test, n=test.planned), margin=margin, alpha=budget.alpha / budget.family)


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


def _oddities(loss: Interval, margin: float) -> list[Oddity]:
    if loss.high < -margin:
        sentence = "too good to be true: better than the uncompressed model by more than the margin"
        return [Oddity(kind="too-good", text=sentence)]
    return []


def _unpaired(kind: GateKind, of: str, found: str) -> GateResult:
    return _unfit(kind, of, "unpaired", f"{found}, so they cannot be compared")


def _unfit(kind: GateKind, of: str, reason: str, message: str) -> GateResult:
    gate = f"{kind.name}:{of}"
    return infra_gate(gate, kind.name, Failure(stage=gate, reason=reason, message=message))


def _other_items(candidate: ZeroShot, baseline: ZeroShot) -> str:
    return f"the two models were not asked the same items ({len(candidate.items)} and {len(baseline.items)})"


def _is_mean(figure: ZeroShot, scores: Mapping[str, float]) -> bool:
    """Whether the metric is its items' mean; lm-eval's `perplexity` is exp(−mean), so better items make it smaller."""
    average = mean(list(scores.values()))
    return not math.isfinite(average) or math.isclose(average, figure.value, rel_tol=1e-6, abs_tol=1e-9)


def _other_text(candidate: Perplexity, baseline: Perplexity) -> bool:
    return (candidate.tokens_sha256, candidate.window) != (baseline.tokens_sha256, baseline.window)


def _unanswered(figure: ZeroShot) -> str:
    return f"; {figure.unanswered} items got no finite log-likelihood" if figure.unanswered else ""
