"""Distribution: all cells of one model in one xdist worker."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from pytest_superweight.session import KEY, GateSession
from superweight.errors import SuperweightError


class ModelScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """xdist scheduling that gives all cells of one model to one worker, so that each model is loaded once."""

    def schedule(self) -> None:
        """Hand out work; the first time, the controller learns here that there is some of ours."""
        super().schedule()
        collected: list[str] = next(iter(self.registered_collections.values()), [])
        if any(model_of(nodeid) in self._models for nodeid in collected):
            self._session.begin()

    def _split_scope(self, nodeid: str) -> str:
        return model_of(nodeid) or nodeid

    @property
    def _session(self) -> GateSession:
        session: GateSession = self.config.stash[KEY]
        return session

    @property
    def _models(self) -> set[str]:
        return {cell.model.id for cell in self._session.matrix}


def model_of(nodeid: str) -> str:
    """The model id in `test_name[model/recipe…]`, or nothing."""
    _, bracket, parameters = nodeid.partition("[")
    model, slash, _ = parameters.partition("/")
    return model if bracket and slash else ""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ModelScheduling | None:
    """To keep each model's cells in one worker, import this hook in the `conftest.py` of your suites.

    It stands back if `--dist` asks for anything but the default.

    Raises:
        pytest.UsageError: a bad card; told here once, before every worker tells it.
    """
    try:
        config.stash[KEY].matrix  # noqa: B018 - reads and checks the cards
    except SuperweightError as error:
        config.stash[KEY].bad_card = str(error)
        config.stash[KEY].begin()
        raise pytest.UsageError(str(error)) from error
    return ModelScheduling(config, log) if config.getoption("dist") == "load" else None
