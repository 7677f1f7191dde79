"""The controller's side of xdist: takes what workers measured, and tells how those ended that died."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pytest_superweight.crumbs import Crumbs
from pytest_superweight.deaths import Death, Watchman
from pytest_superweight.session import KEY


class Workers:
    """Looks after the workers of one run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._session = config.stash[KEY]
        self._crumbs = Crumbs(Path(tempfile.mkdtemp(prefix="superweight-workers-")))
        self._session.crumbs = self._crumbs
        self._watchman = Watchman()
        self._over: set[tuple[str, str]] = set()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where to leave its crumbs."""
        node.workerinput["superweight_crumbs"] = str(self._crumbs.directory)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        """Look at its memory from now on."""
        if self._session.scheduled:
            self._watchman.add(node)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what was measured as soon as it is; its worker may not live to the end."""
        node = getattr(report, "node", None)
        if node is None:
            return
        if handed_over := report.__dict__.pop("superweight_evidence", None):
            self._session.merge(handed_over, node.gateway.id)
        if report.when == "teardown":
            self._over.add((node.gateway.id, report.nodeid))

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """A worker hands over the rest; one that died leaves a hole that makes the run INFRA."""
        handed_over = getattr(node, "workeroutput", {}).get("superweight")
        if handed_over:
            self._session.merge(handed_over, node.gateway.id)
        if error:
            self._session.died(self._death(node, error))
        self._watchman.remove(node)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """Whatever no worker was left for is said before the run is judged."""
        self._watchman.stop()
        distribution = self._config.pluginmanager.getplugin("dsession")
        left = getattr(getattr(distribution, "sched", None), "not_started", ())
        if left and self._session.deaths and not distribution.shouldstop:
            self._session.abandon(left)
        try:
            return (yield)
        finally:
            shutil.rmtree(self._crumbs.directory, ignore_errors=True)

    def _death(self, node: Any, error: object) -> Death:
        worker = node.gateway.id
        test = self._crumbs.started(worker)
        return self._watchman.death(
            node,
            error,
            test=test,
            finished=(worker, test) in self._over,
            step=self._crumbs.step(worker),
        )
