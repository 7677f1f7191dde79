"""Which gate card and which waiver hold for one gate of one cell."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import combinations, product

from superweight.cards.gate import GateCard
from superweight.cards.gate_kinds import gate_kind
from superweight.cards.waiver import WaiverCard
from superweight.errors import CardError


@dataclass(frozen=True)
class GateBook:
    """Gate cards and waivers, looked up by what they apply to.

    Attributes:
        gates: every gate card.
        waivers: every waiver.
    """

    gates: tuple[GateCard, ...]
    waivers: tuple[WaiverCard, ...] = ()

    @classmethod
    def of(cls, gates: Iterable[GateCard], waivers: Iterable[WaiverCard] = ()) -> GateBook:
        """A book of these cards."""
        return cls(tuple(gates), tuple(waivers))

    def gate(self, kind: str, model: str, recipe: str, of: str) -> GateCard | None:
        """The card that holds: among those that apply, the one that is narrower in more of models, recipes and of.

        Args:
            kind: of the gate.
            model: model id.
            recipe: recipe id.
            of: corpus or task id.

        Returns:
            the card; None if there is none, as for a kind that nobody gates by.

        Raises:
            CardError: two cards apply and neither is narrower.

        """
        found = [card for card in self.gates if card.kind == kind and card.applies(model, recipe, of)]
        most = max((card.specificity for card in found), default=0)
        best = [card for card in found if card.specificity == most]
        if len(best) > 1:
            names = " and ".join(f"'{card.id}'" for card in best)
            raise CardError(
                f"gate cards {names}: kind '{kind}': both apply to {model}/{recipe} on '{of}' and neither is narrower. "
                "Give one of them one more of models, recipes and of, or make a pattern of one match less."
            )
        return best[0] if best else None

    def check(
        self, models: Collection[str], recipes: Collection[str], corpora: Iterable[str], tasks: Iterable[str]
    ) -> None:
        """Look up every gate of a matrix for which two cards compete, before anything is measured.

        Raises:
            CardError: as `gate`.

        """
        of_corpora, of_tasks = list(corpora), list(tasks)
        for one, other in combinations(self.gates, 2):
            if one.kind != other.kind or one.specificity != other.specificity:
                continue
            places = product(models, recipes, of_corpora if gate_kind(one.kind).of == "corpus" else of_tasks)
            for model, recipe, of in places:
                if one.applies(model, recipe, of) and other.applies(model, recipe, of):
                    self.gate(one.kind, model, recipe, of)

    def waiver(self, model: str, recipe: str, gate: str, today: datetime.date) -> WaiverCard | None:
        """The waiver that holds today; of several, the one that holds longest."""
        found = [card for card in self._covering(model, recipe, gate) if card.valid_on(today)]
        return max(found, key=lambda card: (card.expires, card.id), default=None)

    def expired(self, model: str, recipe: str, gate: str, today: datetime.date) -> list[WaiverCard]:
        """Waivers that would hold if their time were not over, for a message to tell of them."""
        return [card for card in self._covering(model, recipe, gate) if not card.valid_on(today)]

    def _covering(self, model: str, recipe: str, gate: str) -> list[WaiverCard]:
        return [card for card in self.waivers if card.covers(model, recipe, gate)]
