"""What changed on one model between two runs, cell by cell and figure by figure, paired by window and item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from superweight.cards.gate import GateCard
from superweight.cards.model import Role
from superweight.ids import GateId
from superweight.runs.change import Change, ChangeVerdict
from superweight.runs.figure_pair import FigurePair
from superweight.runs.snapshot import CellFigures, KeptWeight, PerplexityFigure, Snapshot
from superweight.statistics.multiplicity import holm
from superweight.verdict.result import decides

GateLookup = Callable[[str, str, str, str], GateCard | None]
"""The gate card of a kind that holds for a model, a recipe, and a corpus or task, as `GateBook.gate`."""


def compare_cells(before: Snapshot, after: Snapshot, gates: GateLookup) -> list[Change]:
    """Compare every cell and figure that is in either snapshot.

    Figures are compared on the windows or items that both runs have, by the tests and margins that the gate compares a
    compressed model with the uncompressed one by.

    Args:
        before: the earlier run, on one model.
        after: the later run, on the same model.
        gates: finds the card that sets the margin.

    """
    recipes = dict.fromkeys([*before.cells, *after.cells])
    return [change for recipe in recipes for change in _Cell(before, after, recipe).changes(gates)]


class _Cell:
    """One recipe in both runs; whichever of them is missing from a run has no figures there."""

    def __init__(self, before: Snapshot, after: Snapshot, recipe: str) -> None:
        self.before, self.after, self.recipe = before, after, recipe
        self.old, self.new = before.cells.get(recipe), after.cells.get(recipe)
        self.decides = any(decides(cell.role) for cell in (self.old, self.new) if cell is not None)
        self.asked = after.whole and before.tier == after.tier

    def changes(self, gates: GateLookup) -> list[Change]:
        if self.old is not None and self.new is not None:
            old, new = self.old, self.new
            return [
                *self._role(old, new),
                *self._super_weights(old, new),
                *self._size(old, new),
                *self._quality(old, new, gates),
                *self._divergence(old, new),
            ]
        if self.old is not None:
            return [self._vanished(self.old.role)]
        return [self._note("cell", "cell", f"is new: a {self.new.role}", reason="appeared")] if self.new else []

    def _change(self, kind: str, gate: str, verdict: ChangeVerdict, message: str, **more: Any) -> Change:
        return Change(
            model=self.after.model,
            recipe=self.recipe,
            kind=kind,
            gate=gate,
            verdict=verdict,
            message=message,
            decides=self.decides,
            **more,
        )

    def _note(self, kind: str, gate: str, message: str, **more: Any) -> Change:
        return self._change(kind, gate, "NOTE", message, **more)

    def _cannot(self, kind: str, gate: str, reason: str, message: str) -> Change:
        return self._change(kind, gate, "CANNOT COMPARE", message, reason=reason)

    def _vanished(self, role: Role) -> Change:
        if not self.asked:
            return self._cannot("cell", "cell", "not-asked", f"a {role}, was not asked for in the later run")
        words = f"a {role}, is gone from the later run"
        if role == "candidate":
            return self._change("cell", "cell", "REGRESSION", words, reason="vanished")
        return self._cannot("cell", "cell", "vanished", words)

    def _missing(self, kind: str, gate: str, new: CellFigures) -> Change:
        failure = new.failures.get("sanity" if kind == "super-weights" else gate)
        if failure is None and not self.asked:
            return self._cannot(kind, gate, "not-asked", "was not asked for in the later run")
        why = failure or "the run does not say why"
        return self._cannot(kind, gate, "not-measured", f"was not measured in the later run ({why})")

    def _role(self, old: CellFigures, new: CellFigures) -> list[Change]:
        found = []
        if old.role != new.role:
            found.append(self._note("role", "role", f"was a {old.role}, is a {new.role}"))
        if old.promises != new.promises:
            words = "promises its super weights now" if new.promises else "no longer promises its super weights"
            found.append(self._note("role", "promise", words))
        return found

    def _size(self, old: CellFigures, new: CellFigures) -> list[Change]:
        before, after = old.bits_per_weight, new.bits_per_weight
        if before is None or after is None or before == after:
            return []
        words = f"{before:.6g} → {after:.6g} bits a compressed weight"
        return [self._note("size", "size", words, **_figures("bits per weight", before, after))]

    def _super_weights(self, old: CellFigures, new: CellFigures) -> list[Change]:
        if not old.super_weights:
            return []
        if not new.super_weights:
            return [self._missing("super-weights", "super-weights", new)]
        later = {weight.key: weight for weight in new.super_weights}
        pairs = [(weight, later[weight.key]) for weight in old.super_weights if weight.key in later]
        lost = [(then, now) for then, now in pairs if then.survived and not now.survived]
        before, after = (sum(weight.survived for weight in cell.super_weights) for cell in (old, new))
        head = f"{before} of {len(old.super_weights)} super weights kept → {after} of {len(new.super_weights)}"
        lines = [
            head,
            *(f"newly lost: {_bits(then, now)}" for then, now in lost),
            *(f"newly kept: {_bits(then, now)}" for then, now in pairs if now.survived and not then.survived),
            *(
                f"the checkpoint itself holds other bits: {then} {then.original} → {now.original}"
                for then, now in pairs
                if then.original != now.original
            ),
            *_only_in(old.super_weights, new.super_weights, "no longer among the super weights"),
            *_only_in(new.super_weights, old.super_weights, "new among the super weights"),
        ]
        promised = old.promises or new.promises
        verdict: ChangeVerdict = "PASS" if not lost else "REGRESSION" if promised else "NOTE"
        figures = _figures("survived", float(before), float(after), higher_is_better=True)
        return [self._change("super-weights", "super-weights", verdict, "; ".join(lines), n=len(pairs), **figures)]

    def _quality(self, old: CellFigures, new: CellFigures, gates: GateLookup) -> list[Change]:
        """Perplexity and zero-shot; REGRESSION after Holm's correction for the figures of the cell, as in the gate."""
        found = [self._perplexity(old, new, corpus, gates) for corpus in _names(old.perplexity, new.perplexity)]
        found += [self._zero_shot(old, new, task, gates) for task in _names(old.zero_shot, new.zero_shot)]
        tested = [change for change in found if change.p_regression is not None]
        adjusted = holm([change.p_regression or 0.0 for change in tested], family=len(found))
        for change, p in zip(tested, adjusted, strict=True):
            change.p_adjusted = p
            change.verdict = _verdict(change)
        return found

    def _perplexity(self, old: CellFigures, new: CellFigures, corpus: str, gates: GateLookup) -> Change:
        gate = str(GateId("perplexity", corpus))
        before, after = old.perplexity.get(corpus), new.perplexity.get(corpus)
        if before is None or after is None:
            return self._missing("perplexity", gate, new) if before else self._appeared("perplexity", gate)
        if problem := _other_text(before, after):
            return self._cannot("perplexity", gate, *problem)
        pair = FigurePair.of_corpus(corpus, before, after, same_key=_same_key(old, new))
        return self._paired(gate, pair, gates("perplexity", self.after.model, self.recipe, corpus))

    def _zero_shot(self, old: CellFigures, new: CellFigures, task: str, gates: GateLookup) -> Change:
        gate = str(GateId("zero-shot", task))
        before, after = old.zero_shot.get(task), new.zero_shot.get(task)
        if before is None or after is None:
            return self._missing("zero-shot", gate, new) if before else self._appeared("zero-shot", gate)
        if (before.metric, before.higher_is_better) != (after.metric, after.higher_is_better):
            words = f"the gated metric was {before.metric} and is {after.metric}"
            return self._cannot("zero-shot", gate, "metric-changed", words)
        scores = self.before.scores(self.recipe, task), self.after.scores(self.recipe, task)
        if not all(scores):
            which = " and the ".join(name for name, side in zip(("earlier", "later"), scores, strict=True) if not side)
            words = f"the {which} run came without its items/, and totals are not compared"
            return self._cannot("zero-shot", gate, "items-missing", words)
        pair = FigurePair.of_task(task, (before, after), scores, same_key=_same_key(old, new))
        return self._paired(gate, pair, gates("zero-shot", self.after.model, self.recipe, task))

    def _paired(self, gate: str, pair: FigurePair, card: GateCard | None) -> Change:
        figure = pair.figure
        if not figure.after:
            words = f"no {figure.kind.items.removesuffix('s')} in common"
            return self._cannot(figure.kind.name, gate, "nothing-in-common", words)
        if card is None:
            words = f"{pair.summary()}; no gate card sets a margin for it"
            return self._cannot(figure.kind.name, gate, "no-card", words)
        judged = pair.judged(card)
        return self._change(figure.kind.name, gate, "INCONCLUSIVE", judged.pop("message"), **judged)

    def _appeared(self, kind: str, gate: str) -> Change:
        return self._note(kind, gate, "is new", reason="appeared")

    def _divergence(self, old: CellFigures, new: CellFigures) -> list[Change]:
        """The mean divergence from the uncompressed model; shown only, since a snapshot keeps none of its windows."""
        found = []
        for corpus in [name for name in old.perplexity if name in new.perplexity]:
            before, after = old.perplexity[corpus].kl, new.perplexity[corpus].kl
            if before is not None and after is not None and before != after:
                words = f"divergence from the uncompressed model on {corpus} {before:.4g} → {after:.4g} nats a token"
                figures = _figures("divergence", before, after)
                found.append(self._note("divergence", str(GateId("divergence", corpus)), words, **figures))
        return found


def _verdict(change: Change) -> ChangeVerdict:
    assert change.alpha is not None
    assert change.p_pass is not None
    assert change.p_adjusted is not None
    if change.p_adjusted <= change.alpha:
        return "REGRESSION"
    return "PASS" if change.p_pass <= change.alpha else "INCONCLUSIVE"


def _figures(metric: str, before: float, after: float, *, higher_is_better: bool = False) -> dict[str, Any]:
    return {
        "metric": metric,
        "before": before,
        "after": after,
        "difference": after - before,
        "higher_is_better": higher_is_better,
    }


def _other_text(before: PerplexityFigure, after: PerplexityFigure) -> tuple[str, str] | None:
    if before.protocol != after.protocol:
        return "protocol-changed", f"measured otherwise: '{before.protocol}' before, '{after.protocol}' after"
    if before.window != after.window:
        return "other-tokens", f"windows of {before.window} tokens before, of {after.window} after"
    if before.tokens_sha256 != after.tokens_sha256:
        words = f"other tokens: sha256 {before.tokens_sha256[:12]} before, {after.tokens_sha256[:12]} after"
        return "other-tokens", words
    return None


def _names(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    return list(dict.fromkeys([*before, *after]))


def _same_key(old: CellFigures, new: CellFigures) -> bool:
    return bool(old.key) and old.key == new.key


def _bits(before: KeptWeight, after: KeptWeight) -> str:
    return f"{after} expected {after.original}, found {after.stored} (before: {before.stored})"


def _only_in(these: Sequence[KeptWeight], others: Sequence[KeptWeight], words: str) -> list[str]:
    known = {weight.key for weight in others}
    return [f"{words}: {weight}" for weight in these if weight.key not in known]
