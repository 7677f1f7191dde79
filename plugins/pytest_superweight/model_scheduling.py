"""The xdist scheduler that keeps a model's cells together."""

from __future__ import annotations

from pytest_superweight.node_id import NodeId
from pytest_superweight.surviving import Surviving


class ModelScheduling(Surviving):
    """xdist scheduling that gives all cells of one model to one worker, so that each model is loaded once."""

    def schedule(self) -> None:
        """Hand out work; the first time, the controller learns here that there is some of ours."""
        super().schedule()
        collected: list[str] = next(iter(self.registered_collections.values()), [])
        if any(NodeId.parse(nodeid).model in self._models for nodeid in collected):
            self._session.start()

    def _split_scope(self, nodeid: str) -> str:
        return NodeId.parse(nodeid).model or nodeid

    @property
    def _models(self) -> set[str]:
        return {cell.model.id for cell in self._session.plan.cells}
