"""Distribution: all cells of one model in one xdist worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_superweight.session import KEY
from superweight.errors import SuperweightError

if TYPE_CHECKING:  # a conftest.py imports this module, and most runs have one process
    from pytest_superweight.model_scheduling import ModelScheduling


@pytest.hookimpl(optionalhook=True)  # without xdist, nothing knows of this hook
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
    if config.getoption("dist") != "load":
        return None
    from pytest_superweight.model_scheduling import ModelScheduling

    return ModelScheduling(config, log)
