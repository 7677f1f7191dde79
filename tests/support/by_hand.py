"""Evidence, snapshots and gate cards made by hand, for tests of what is decided from them."""

import math

from superweight.cards import GateCard
from superweight.evidence import CellEvidence, Perplexity, Size, StoredWeight, ZeroShot
from superweight.report import RunInfo, build_document
from superweight.runs.snapshot import snapshot_of
from superweight.verdict import GateResult, judge_cell

WHY = "a reason long enough to be one"
CARDS = {
    kind: GateCard(id=kind, title=kind, kind=kind, margin=0.05, why=WHY, date="2026-01-31")
    for kind in ("perplexity", "zero-shot")
}
BASE = [3.0, 3.2, 2.9, 3.1, 3.05, 2.95, 3.15, 3.0]
TAKEN = "2026-01-31T01:00:00+00:00"


def gates(kind, model, recipe, of):
    """One card a kind, margins of 5 per cent and of 5 points."""
    return CARDS.get(kind)


def perplexity(nll, **more):
    mean = math.fsum(nll) / len(nll)
    given = {
        "value": math.exp(mean) if mean < 700 else math.inf,
        "protocol": "gptq",
        "corpus": "wiki",
        "origin": "here",
        "window": 512,
        "windows": len(nll),
        "planned": len(nll),
        "tokens": 511 * len(nll),
        "nll": list(nll),
        "tokens_sha256": "t" * 64,
    }
    return Perplexity(**(given | more))


def zero_shot(scores, first=0, **more):
    metric = more.get("metric", "acc")
    items = [
        {"doc_id": first + i, "doc_hash": f"{(first + i) * 2654435761 % 2**64:016x}" * 4, metric: score}
        for i, score in enumerate(scores)
    ]
    value = math.fsum(scores) / len(scores)
    given = {"task": "piqa", "metric": metric, "n": len(scores), "planned": len(scores), "data": "made up"}
    return ZeroShot(**(given | {"metrics": {metric: value}, "items": items} | more))


def weight(row=2, survived=True, **more):
    given = {
        "layer": 1, "row": row, "column": 3, "status": "causal", "origin": "card", "dtype": "float32",
        "original": 1.0, "original_bits": "0x3f800000", "stored": 1.0 if survived else 0.0,
        "stored_bits": "0x3f800000" if survived else "0x00000000", "survived": survived,
    }  # fmt: skip
    return StoredWeight(**(given | more))


def cell(recipe="rtn", role="candidate", nll=None, scores=None, model="m", **more):
    """A cell with perplexity on `wiki` and accuracy on `piqa`, as far as they are given."""
    more.setdefault("promises", role == "candidate")
    more.setdefault("expects", "REGRESSION" if role == "control" else None)
    more.setdefault("size", Size(compressed_bits_per_weight=4.5, model_bits_per_weight=8.0))
    if nll is not None:
        more.setdefault("perplexity", {"wiki": perplexity(nll)})
    if scores is not None:
        more.setdefault("zero_shot", {"piqa": zero_shot(scores)})
    return CellEvidence(model=model, recipe=recipe, role=role, **more)


def baseline(nll=BASE, scores=None, content_hash="c" * 64, **more):
    checkpoint = {"content_hash": content_hash, "origin": "here", "dtype": "float32", "compute_dtype": "bfloat16"}
    return cell("baseline", "baseline", nll, scores, checkpoint=checkpoint, **more)


def snapshot(*cells, model="m", tier="smoke", taken=TAKEN, verdict="PASS", **more):
    return snapshot_of(model, cells, tier=tier, taken=taken, verdict=verdict, **more)


def document(*cells, started=TAKEN, tier="smoke", left_out=(), figures=None, failed=(), **environment):
    """A judged run.

    Args:
        figures: of each recipe, the perplexity gate's `(baseline, value)`; recipes without get a gate that passes.
        failed: recipes that regress.
    """
    run = RunInfo(started=started, tier=tier, commit="abc", left_out=list(left_out), environment=environment)
    judged = []
    for one in cells:
        theirs, ours = (figures or {}).get(one.recipe, (20.0, 20.0))
        verdict = "REGRESSION" if one.recipe in failed else "PASS"
        gate = GateResult(
            gate="perplexity:wiki", kind="perplexity", verdict=verdict, message="made up", metric="perplexity",
            value=ours, baseline=None if one.role == "baseline" else theirs,
            difference=None if one.role == "baseline" else ours / theirs - 1, n=8, planned=8, margin=0.05,
            higher_is_better=False,
        )  # fmt: skip
        judged.append(judge_cell(one, [gate]))
    return build_document(run, judged)
