"""What to try next about a gate that did not pass: short sentences that follow from the evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from superweight.evidence.measured import CellEvidence, StoredWeight
from superweight.verdict.explain.next_settings import finer_settings, settings_that_keep_super_weights
from superweight.verdict.result import QUALITY, Advice, AdviceKind, GateResult

_EXPLODED = 10  # times the baseline's perplexity: beyond what rounding does to a model that still works
_CHANGED_MUCH = 0.1  # relative; smaller changes of a super weight seldom show (arXiv:2411.07191, figure 6)
_LISTED = 4


def advice(
    cell: CellEvidence,
    gate: GateResult,
    *,
    gates: Sequence[GateResult] = (),
    run: Sequence[CellEvidence] = (),
    sizes: Mapping[str, int | None] | None = None,
) -> list[Advice]:
    """What to try about one gate of one cell.

    Args:
        cell: what was measured.
        gate: a gate of the cell. There is nothing to try about one that passed with no flag or was not measured, nor
            about a control that must fail.
        gates: all gates of the cell, for what can only be seen in several of them.
        run: all cells of the run, for what another recipe did to the same model.
        sizes: windows or items of this gate by tier, the smaller tiers first; None for all there are.

    Returns:
        the most telling first; empty if there is nothing to say that the figures do not say themselves.

    """
    asked = gate.id.kind
    too_good = _too_good(cell, gate, run) if any(oddity.kind == "too-good" for oddity in gate.oddities) else []
    if gate.verdict == "INCONCLUSIVE":
        return too_good + _undecided(gate, sizes or {})
    if gate.verdict != "REGRESSION" or asked == "sanity" or cell.expects == "REGRESSION":
        return too_good
    if asked == "detection":
        sentence = (
            f"`superweight detect {cell.model}` prints every candidate with its effect: if this is the right "
            "checkpoint, correct the card; if not, pin the source's revision"
        )
        return [Advice(kind="check-card", text=sentence)]
    if asked == "super-weights":
        return too_good + _restore(cell, run)
    return (
        too_good
        + _cause(cell, gate)
        + _hidden(asked, gates)
        + _each("finer-settings", finer_settings(cell.recipe_parameters))
        + _elsewhere(cell, gate, run)
    )


def _each(kind: AdviceKind, sentences: Iterable[str]) -> list[Advice]:
    return [Advice(kind=kind, text=sentence) for sentence in sentences]


def super_weight_state(cell: CellEvidence) -> str:
    """One line: how many super weights are lost, which, and from what to what."""
    lost, total = _lost(cell), len(cell.super_weights)
    if not total:
        return "no super weights known"
    if not lost:
        return f"all {total} super weights kept" if total > 1 else "the one super weight kept"
    shown = ", ".join(f"{weight} {_values(weight)}" for weight in lost[:_LISTED])
    more = f" and {len(lost) - _LISTED} more" if len(lost) > _LISTED else ""
    return f"{len(lost)} of {total} super weights lost: {shown}{more}"


def _lost(cell: CellEvidence) -> list[StoredWeight]:
    return cell.lost_super_weights


def _values(weight: StoredWeight) -> str:
    """Both values with as many digits as tell them apart, or their bits."""
    for digits in (5, 9, 17):
        before, after = f"{weight.original:.{digits}g}", f"{weight.stored:.{digits}g}"
        if before != after:
            return f"{before} → {after}"
    return f"{weight.original_bits} → {weight.stored_bits}"


def _largest_change(cell: CellEvidence) -> float:
    """Of the lost super weights, relative; infinite if one was zero before or is no number now."""
    changes = [
        abs(weight.stored - weight.original) / abs(weight.original) if weight.original else math.inf
        for weight in _lost(cell)
    ]
    return max((math.inf if math.isnan(change) else change for change in changes), default=0.0)


def _restore(cell: CellEvidence, run: Sequence[CellEvidence]) -> list[Advice]:
    suggested = _each("restore", settings_that_keep_super_weights(cell.recipe_parameters))
    change = _largest_change(cell)
    if suggested and 0 < change < _CHANGED_MUCH:
        sentence = (
            f"the largest change is {change:.2%} of the weight: if the other gates pass and no more is needed, "
            f"promise = '{_rounded_up(change)} %' on the recipe card promises that, and promises_super_weights = false "
            "nothing"
        )
        suggested.append(Advice(kind="promise-nothing", text=sentence))
    keepers = [
        other.recipe
        for other in _others(cell, run)
        if other.super_weights and not _lost(other) and other.sanity is not None and other.sanity.changed
    ]
    if keepers:
        suggested.append(Advice(kind="beside", text=f"in this run {_and(keepers)} kept them all", recipes=keepers))
    return suggested


def _rounded_up(change: float) -> str:
    """A bound in per cent that a change keeps, to one digit behind the point."""
    return f"{math.ceil(1000 * change) / 10:g}"


def _cause(cell: CellEvidence, gate: GateResult) -> list[Advice]:
    """What the super weights and the size of the damage point at."""
    ratio = gate.value / gate.baseline if gate.id.kind == "perplexity" and gate.value and gate.baseline else 1.0
    if not math.isfinite(ratio):
        overflow = cell.checkpoint.get("compute_dtype") == "float16"
        float16 = ": float16 overflows beyond 65504, try --superweight-dtype bfloat16" if overflow else ""
        sentence = f"some window has no finite likelihood{float16}; the sanity gate names weights that are not finite"
        return [Advice(kind="check-arithmetic", text=sentence)]
    state = super_weight_state(cell)
    exploded = f"perplexity is ×{ratio:.3g} with " if ratio > _EXPLODED else ""
    if _largest_change(cell) >= _CHANGED_MUCH:
        blame = "losing super weights alone can do this (arXiv:2411.07191, table 1), so restore them first"
        settings = settings_that_keep_super_weights(cell.recipe_parameters)
        return _each("restore", [f"{exploded}{state}: {blame}", *settings])
    if not exploded or not cell.super_weights:
        return []
    rounded = cell.sanity is not None and cell.sanity.hooks
    where = (
        "the activations are rounded too, so measure a weight-only recipe of the same weights to tell the two apart"
        if rounded
        else "look for a matrix that came out wrong, or for blocks far too coarse"
    )
    return [Advice(kind="look-elsewhere", text=f"{exploded}{state}, so the damage is elsewhere: {where}")]


def _hidden(asked: str, gates: Sequence[GateResult]) -> list[Advice]:
    """Of a model that is as good and yet another one (arXiv:2407.09141)."""
    required = [name for name, kind in QUALITY.items() if kind.required]
    quality = [gate for gate in gates if gate.id.kind in required]
    finding = QUALITY[asked].another_model if asked in QUALITY else ""
    if not finding or not quality:
        return []
    if any(gate.verdict != "PASS" for gate in quality):
        return []
    sentence = (
        f"perplexity and accuracy hold, but {finding}: as good a model and not the same one (arXiv:2407.09141). If it "
        "must not be told from the uncompressed one, compress less; if it may, this margin is the one to think about"
    )
    return [Advice(kind="settle-margin", text=sentence)]


def _elsewhere(cell: CellEvidence, gate: GateResult, run: Sequence[CellEvidence]) -> list[Advice]:
    """The best figure of another recipe on the same windows or items of this run, if it is within the margin."""
    figure = _figure(cell, gate)
    if figure is None:
        return []
    most = min(figure.badness, _most_accepted(gate))
    others = [(shown, other) for other in _others(cell, run) if (shown := _figure(other, gate)) is not None]
    better = [pair for pair in others if pair[0].measured_on == figure.measured_on and pair[0].badness < most]
    if not better:
        return []
    best, other = min(better, key=lambda pair: pair[0].badness)
    size = f" at {other.size.compressed_bits_per_weight:.2f} bits a weight" if other.size else ""
    sentence = f"in this run {other.recipe} has {best.shown}{size}, and this recipe {figure.shown}"
    return [Advice(kind="beside", text=sentence, recipes=[other.recipe])]


def _most_accepted(gate: GateResult) -> float:
    """The badness that lies at the margin; infinite where there is none."""
    if gate.baseline is None or gate.margin is None:
        return math.inf
    if gate.kind in QUALITY and QUALITY[gate.kind].scale == "ratio":
        return gate.baseline * (1 + gate.margin)
    return gate.margin - gate.baseline if gate.higher_is_better else gate.baseline + gate.margin


class _Figure(NamedTuple):
    badness: float
    shown: str
    measured_on: tuple[object, ...]


def _figure(cell: CellEvidence, gate: GateResult) -> _Figure | None:
    kind, name = gate.id
    if kind == "perplexity" and name in cell.perplexity:
        text = cell.perplexity[name]
        return _Figure(text.value, f"perplexity {text.value:.4g}", (text.windows, text.window, text.tokens_sha256))
    if kind == "zero-shot" and name in cell.zero_shot:
        task = cell.zero_shot[name]
        badness = -task.value if task.higher_is_better else task.value
        return _Figure(badness, f"{task.metric} {task.value:.4f}", (task.metric, task.n))
    return None


def _others(cell: CellEvidence, run: Sequence[CellEvidence]) -> list[CellEvidence]:
    """Other recipes that compress the same model."""
    return [
        other
        for other in run
        if other.model == cell.model
        and other.recipe != cell.recipe
        and (other.method is None or other.method.compresses)
    ]


def _undecided(gate: GateResult, sizes: Mapping[str, int | None]) -> list[Advice]:
    units = QUALITY[gate.id.kind].items if gate.id.kind in QUALITY else "items"
    if gate.n is not None and gate.planned is not None and gate.n < gate.planned:
        return []  # not pursued, since the cell was decided without it: what decided it comes first
    if gate.needed is None:
        sentence = (
            f"no number of {units} within reach would decide: what is lost lies at the margin. Settle whether a loss "
            "of that size is acceptable, or compress less"
        )
        return [Advice(kind="settle-margin", text=sentence)]
    if gate.n is not None and gate.needed <= gate.n:
        sentence = (
            f"{gate.needed} {units} decide this four times in five if the loss seen is the true one; {gate.n} did not: "
            "measure more of them"
        )
        return [Advice(kind="measure-more", text=sentence, n=gate.needed)]
    text = f"about {gate.needed} {units} would decide if the loss and the spread seen are the true ones"
    text += f", and {gate.n} were measured" if gate.n is not None else ""
    enough = next((tier for tier, size in sizes.items() if size is None or size >= gate.needed), "")
    if enough:
        size = sizes[enough]
        way = f"--superweight-tier {enough} measures {'all there are' if size is None else size}"
    else:
        way = f"raise {'windows' if units == 'windows' else 'limit'} in a tier card of your own"
    return [Advice(kind="measure-more", text=f"{text}: {way}", tier=enough, n=gate.needed)]


def _too_good(cell: CellEvidence, gate: GateResult, run: Sequence[CellEvidence]) -> list[Advice]:
    """Why a candidate may look better than the model it was made from."""
    return [Advice(kind="check-inputs", text=_why_too_good(cell, gate, run))]


def _why_too_good(cell: CellEvidence, gate: GateResult, run: Sequence[CellEvidence]) -> str:
    baseline = next((other for other in run if other.model == cell.model and other.role == "baseline"), None)
    in_memory = cell.method is None or bool(cell.method.implementation)
    same = (("content_hash", "checkpoint"), ("compute_dtype", "arithmetic"), ("dtype", "dtype"))
    for key, name in same if in_memory else same[1:2]:
        here, there = cell.checkpoint.get(key), (baseline.checkpoint if baseline else {}).get(key)
        if here and there and here != there:
            return f"the baseline is of another {name} ({there}, and here {here}): measure both on the same"
    calibration = cell.method.calibration if cell.method else None
    if calibration and gate.of == calibration.corpus:
        return f"the recipe is calibrated on '{calibration.corpus}', which this gate measures: gate it on another text"
    if cell.sanity is not None and not cell.sanity.changed and not cell.sanity.hooks:
        return "nothing was compressed, so the two figures should be the same: run it again"
    return (
        "rounding seldom helps by more than chance: check that baseline and candidate are what they say, and that "
        "neither was made with the text that is measured"
    )


def _and(names: Sequence[str]) -> str:
    shown = [*names[:_LISTED], *([f"{len(names) - _LISTED} more"] if len(names) > _LISTED else [])]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
