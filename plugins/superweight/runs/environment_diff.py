"""What differs around two runs: checkpoint, machine, libraries; and whether the uncompressed model's figures moved."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydantic import Field

from superweight.evidence.measured import Noise, Record
from superweight.ids import GateId
from superweight.runs.figure_pair import FigurePair
from superweight.runs.snapshot import Snapshot
from superweight.statistics.averages import finite, mean
from superweight.verdict.kinds import scale_of

_SIGMAS = 3.0  # beyond the noise by chance: less than three figures in a thousand


class Difference(Record):
    """Something that figures may depend on, and that is not the same in both runs."""

    name: str = Field(description="`tier`, `checkpoint content_hash`, `torch`, `device`, …")
    before: str
    after: str

    def describe(self) -> str:
        """In one phrase."""
        return f"{self.name} {self.before or 'none'} → {self.after or 'none'}"


def environment_diff(before: Snapshot, after: Snapshot) -> list[Difference]:
    """Tier, checkpoint, machine and library versions, as far as they differ."""

    def recorded(snapshot: Snapshot) -> dict[str, str]:
        identity = {f"checkpoint {name}": str(value) for name, value in snapshot.checkpoint.model_dump().items()}
        return {"tier": snapshot.tier, **identity, **snapshot.environment}

    old, new = recorded(before), recorded(after)
    return [
        Difference(name=name, before=old.get(name, ""), after=new.get(name, ""))
        for name in dict.fromkeys([*old, *new])
        if old.get(name, "") != new.get(name, "")
    ]


def baseline_moved(before: Snapshot, after: Snapshot) -> list[str]:
    """Where the same checkpoint, uncompressed, gives another figure than before.

    The mean difference on the windows or items that both runs have is held against three standard errors, beside the
    offset, of the A/A repeats of either run; where no repeat was made, against three of its own standard errors.

    Returns:
        one sentence a figure; empty if the checkpoint is another one, since then figures may differ.

    """
    same = before.checkpoint.content_hash and before.checkpoint.content_hash == after.checkpoint.content_hash
    if not same:
        return []
    changed = ", ".join(difference.describe() for difference in environment_diff(before, after))
    cause = f"what differs around the runs: {changed}" if changed else "nothing that was recorded around them differs"
    alarms = []
    for gate, pair in _baseline_figures(before, after):
        losses = pair.figure.losses
        if not losses or not finite(losses):
            continue
        noise = after.noise.get(gate) or before.noise.get(gate)
        allowed = _allowed(losses, noise)
        if abs(mean(losses)) > allowed:
            heard = f"its A/A repeat ({noise.variation})" if noise else "its own scatter"
            unit = scale_of(pair.figure.kind).loss_unit or " of the score"
            alarms.append(
                f"the uncompressed model, the same checkpoint, gives another figure: {pair.summary()} over "
                f"{len(losses)} {pair.figure.unit}, {mean(losses):+.3g}{unit} of loss where {heard} allows "
                f"{allowed:.3g}; {cause}"
            )
    return alarms


def _allowed(losses: list[float], noise: Noise | None) -> float:
    n = len(losses)
    if noise is None:
        return _SIGMAS * _sd(losses) / math.sqrt(n)
    return abs(noise.mean) + _SIGMAS * noise.sd * math.sqrt(1 / n + 1 / max(noise.n, 1))


def _sd(values: list[float]) -> float:
    average = mean(values)
    return math.sqrt(math.fsum((value - average) ** 2 for value in values) / max(len(values) - 1, 1))


def _baseline_figures(before: Snapshot, after: Snapshot) -> Iterator[tuple[str, FigurePair]]:
    """The uncompressed model's figures that are of the same text and the same metric."""
    for recipe, new in after.cells.items():
        old = before.cells.get(recipe)
        if old is None or new.role != "baseline" or old.role != "baseline":
            continue
        for corpus, then in old.perplexity.items():
            now = new.perplexity.get(corpus)
            if now is not None and (then.tokens_sha256, then.window) == (now.tokens_sha256, now.window):
                yield str(GateId("perplexity", corpus)), FigurePair.of_corpus(corpus, then, now, same_key=False)
        for task, earlier in old.zero_shot.items():
            later = new.zero_shot.get(task)
            if later is not None and earlier.metric == later.metric:
                scores = before.scores(recipe, task), after.scores(recipe, task)
                figure = FigurePair.of_task(task, (earlier, later), scores, same_key=False)
                yield str(GateId("zero-shot", task)), figure
