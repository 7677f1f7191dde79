"""Confirmation by ablation: singly, by input column and by row, against a null of equally large other weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from superweight.cards.base import Coordinate
from superweight.checkpoint.loading import LoadedModel
from superweight.detect.ablation import Ablation, Effect
from superweight.detect.null import Suspects, null_groups
from superweight.detect.result import Group, GroupKind, Standing
from superweight.detect.settings import Thresholds

Say = Callable[[str], None]
"""Called with one line for each step."""


@dataclass
class Finding:
    """What ablation said of one weight.

    Attributes:
        coordinate: where it is.
        effect: of zeroing it alone.
        null: largest ratio of one equally large other weight; None if none was needed.
        status: its standing.
        group: what it was grouped by where that decided or informs its standing.
        group_effect: ratio when that group is zeroed.

    """

    coordinate: Coordinate
    effect: Effect
    null: float | None = None
    status: Standing = "inert"
    group: GroupKind | None = None
    group_effect: float | None = None


@dataclass
class Confirmation:
    """Measures candidates and gives each its standing.

    A weight is *causal* if zeroing it alone raises perplexity by the floor or more, and by more than the worst null
    group of one equally large other weight at the confidence asked for. The weights of an input column (then of a row)
    that are not causal are *spokes* if zeroing them together does so, against null groups of as many weights; or if
    zeroing them on top of the group's causal ones multiplies perplexity by `settings.on_top`, and by more than null
    weights zeroed on top do. If that leaves none, the
    candidates of detection are held to the same all together. The rest is *inert*.

    Args:
        loaded: the model.
        ablation: what measures.
        suspects: weights that no null may touch.
        settings: thresholds.
        say: told of each step.

    """

    loaded: LoadedModel
    ablation: Ablation
    suspects: Suspects
    settings: Thresholds
    say: Say
    findings: dict[tuple[int, ...], Finding] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

    def run(self, coordinates: Sequence[Coordinate], proposed: Sequence[Coordinate]) -> None:
        """Measure all of them, and those that detection proposed all at once; see `findings` and `groups`."""
        for coordinate in coordinates:
            self._alone(coordinate)
        for members in _grouped(coordinates, lambda c: (*c.key[:2], c.column)):
            self._together("column", members)
        for members in _grouped(coordinates, lambda c: (c.layer, c.row)):
            self._together("row", members)
        if len(proposed) > 1:
            self._together("all", list(proposed))

    def _alone(self, coordinate: Coordinate) -> None:
        finding = Finding(coordinate, self.ablation.effect([coordinate]))
        self.findings[coordinate.key] = finding
        if finding.effect.ratio >= self.settings.floor:
            worst = self._worst_null([coordinate])
            finding.null = None if worst is None else worst.ratio
            if self.ablation.exceeds(finding.effect, worst) and self.ablation.exceeds(finding.effect, None):
                finding.status = "causal"
        self.say(f"{coordinate} alone: ×{finding.effect.ratio:.4g}, {finding.status}")

    def _together(self, kind: GroupKind, members: list[Coordinate]) -> None:
        """Zero a group; what of it is not causal alone becomes a spoke if it does harm together."""
        effect = self.ablation.effect(members)
        causal = [member for member in members if self.findings[member.key].status == "causal"]
        rest = [member for member in members if self.findings[member.key].status == "inert"]
        harm, null = self._harm(kind, causal, rest)
        without = self.ablation.effect(rest).ratio if causal and rest and kind != "all" else None
        self.groups.append(Group(kind, tuple(members), effect.ratio, without, null))
        self.say(f"{kind} of {', '.join(map(str, members))} together: ×{effect.ratio:.4g}")
        for member in members:
            finding = self.findings[member.key]
            decided = harm and member in rest
            if decided:
                finding.status, finding.null = "spoke", null
            if decided or (kind == "column" and finding.group is None):
                finding.group, finding.group_effect = kind, effect.ratio

    def _harm(self, kind: GroupKind, causal: list[Coordinate], rest: list[Coordinate]) -> tuple[bool, float | None]:
        """Whether the weights that are not causal alone do harm together, and the null they were held against."""
        if not rest or (kind == "all" and any(one.status != "inert" for one in self.findings.values())):
            return False, None
        if len(rest) > 1:
            effect = self.ablation.effect(rest)
            if effect.ratio >= self.settings.floor:
                worst = self._worst_null(rest)
                if self.ablation.exceeds(effect, worst) and self.ablation.exceeds(effect, None):
                    return True, None if worst is None else worst.ratio
        return self._harm_on_top(causal, rest) if causal else (False, None)

    def _harm_on_top(self, causal: list[Coordinate], rest: list[Coordinate]) -> tuple[bool, float | None]:
        without, effect = self.ablation.effect(causal), self.ablation.effect([*causal, *rest])
        if effect.ratio < self.settings.on_top * without.ratio:
            return False, None
        worst = self._worst_null(rest, beside=causal) or without
        return self.ablation.exceeds(effect, worst) and self.ablation.exceeds(effect, without), worst.ratio

    def _worst_null(self, members: Sequence[Coordinate], beside: Sequence[Coordinate] = ()) -> Effect | None:
        """The most harmful null group, each zeroed together with `beside`; None if the model has no such weights."""
        groups = null_groups(self.loaded, members, self.suspects, self.settings.null_groups)
        effects = [self.ablation.effect([*beside, *group]) for group in groups]
        return max(effects, key=lambda effect: effect.ratio, default=None)


def _grouped(
    coordinates: Sequence[Coordinate], key: Callable[[Coordinate], tuple[int, ...]]
) -> Iterator[list[Coordinate]]:
    """Groups of two and more that share a key, in order."""
    groups: dict[tuple[int, ...], list[Coordinate]] = {}
    for coordinate in coordinates:
        groups.setdefault(key(coordinate), []).append(coordinate)
    yield from (members for members in groups.values() if len(members) > 1)
