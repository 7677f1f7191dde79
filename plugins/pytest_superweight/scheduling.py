"""Distribution: all cells of one model in one xdist worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_superweight.session import KEY
from superweight.errors import SuperweightError

if TYPE_CHECKING:  # a conftest.py imports this module, and most runs have one process
    from pytest_superweight.surviving import Surviving


@pytest.hookimpl(optionalhook=True)  # without xdist, nothing knows of this hook
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Surviving | None:
    """To keep each model's cells in one worker, import this hook in the `conftest.py` of your suites.

    If `--dist` asks for anything but the default, that is kept. Workers may die, and the run goes on: each test is
    started once (with `--dist worksteal` and `each`, as xdist does it).

    Raises:
        pytest.UsageError: a bad card; told here once, before every worker tells it.
    """
    session = config.stash[KEY]
    try:
        session.plan  # noqa: B018 - reads and checks the cards
    except SuperweightError as error:
        session.bad_card = str(error)
        session.start()
        raise pytest.UsageError(str(error)) from error
    from pytest_superweight.model_scheduling import ModelScheduling
    from pytest_superweight.surviving import Surviving, SurvivingFile, SurvivingGroup

    ways: dict[str, type[Surviving]] = {
        "load": ModelScheduling,
        "loadscope": Surviving,
        "loadfile": SurvivingFile,
        "loadgroup": SurvivingGroup,
    }
    way = ways.get(config.getoption("dist"))
    return None if way is None else way(config, log)
