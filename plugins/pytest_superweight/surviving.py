"""xdist scheduling that outlives its workers: what killed one is not started again, and nobody waits for the dead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xdist.scheduler import LoadFileScheduling, LoadGroupScheduling, LoadScopeScheduling

from pytest_superweight.session import KEY, GateSession

_COLLECTING = 4  # workers that may die without a test to blame, times the number of workers


class Surviving(LoadScopeScheduling):  # type: ignore[misc]
    """`--dist loadscope` on which workers may die at any time; each test is started once."""

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        self._distribution = config.pluginmanager.getplugin("dsession")
        self._session.scheduled = True
        self._collected: Sequence[str] = ()
        self._settled: set[str] = set()
        if getattr(self._distribution, "_max_worker_restart", 0) is None:
            self._distribution._max_worker_restart = _COLLECTING * self.numnodes

    @property
    def tests_finished(self) -> bool:
        """Whether all tests have run, or nobody is left to run them."""
        return bool(super().tests_finished) or not getattr(self._distribution, "_active_nodes", True)

    @property
    def not_started(self) -> list[str]:
        """Tests that no worker has run."""
        return [nodeid for nodeid in self._collected if nodeid not in self._settled]

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """Take what a worker collected; one that collected other tests than the others gets none of them."""
        self._collected = self.collection or collection
        if not self.collection_is_completed or self.collection:
            super().add_node_collection(node, collection)
        if node not in self.registered_collections:
            node.shutdown()

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        """Cross out a test."""
        self._settled.add(self.registered_collections[node][item_index])
        super().mark_test_complete(node, item_index, duration)

    def remove_node(self, node: Any) -> str | None:
        """Put back what a worker leaves undone, but for the test that it died over.

        Returns:
            that test; None if the worker ended in order or between two tests.

        """
        workload = self.assigned_work.pop(node)
        if self.collection is None:  # the others are still collecting, and this one does not count any more
            self.registered_collections.pop(node, None)
        left = [nodeid for unit in workload.values() for nodeid, done in unit.items() if not done]
        fatal = self._fatal(node, left)
        for scope, unit in workload.items():
            rest = {nodeid: False for nodeid, done in unit.items() if not done and nodeid != fatal}
            if rest:
                self.workqueue[scope] = rest
        if self.workqueue:
            for other in self.nodes:
                self._reschedule(other)
        return fatal

    def _fatal(self, node: Any, left: Sequence[str]) -> str | None:
        if not left or hasattr(node, "workeroutput"):
            return None
        started = self._session.last_started(node.gateway.id)
        fatal = left[0] if started is None else started
        if fatal not in left:
            return None
        self._settled.add(fatal)
        if self.config.getoption("maxworkerrestart") is None:  # there are only so many tests
            self._distribution._max_worker_restart += 1
        return fatal

    def _reschedule(self, node: Any) -> None:
        """Give a worker enough to go on: it runs a test when it knows the next, or that there is none."""
        waiting = -1
        while node in self.registered_collections and len(self.workqueue) != waiting:
            waiting = len(self.workqueue)
            super()._reschedule(node)
            if self._pending_of(self.assigned_work[node]) > 1:
                return

    @property
    def _session(self) -> GateSession:
        session: GateSession = self.config.stash[KEY]
        return session


class SurvivingFile(Surviving, LoadFileScheduling):  # type: ignore[misc]
    """The same for `--dist loadfile`."""


class SurvivingGroup(Surviving, LoadGroupScheduling):  # type: ignore[misc]
    """The same for `--dist loadgroup`."""
