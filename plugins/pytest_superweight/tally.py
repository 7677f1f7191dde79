"""What of a run is done, what it said so far, and how long the rest may take."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pytest_superweight.node_id import NodeId

if TYPE_CHECKING:
    from superweight.evidence import Verdict


class Test(NamedTuple):
    """One test of a cell, as its id tells: `suites/test_4_perplexity.py::test_perplexity[model/recipe/wiki]`."""

    cell: str
    kind: str
    """The same for tests of other cells that measure the same."""

    @classmethod
    def of(cls, nodeid: str, cells: Iterable[str]) -> Test | None:
        """The test with this id; None if it is about none of these cells."""
        test = NodeId.parse(nodeid)
        return cls(test.cell, f"{test.function}/{test.of}") if test.cell in set(cells) else None


@dataclass
class CellTally:
    """One cell: how many of its tests are left, and the verdicts that they gave."""

    role: str
    left: int = 0
    seconds: float = 0.0
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    failed: bool = False

    @property
    def verdict(self) -> str:
        """The worst so far; of a control, whether it did what it must."""
        if self.role == "control":
            return "NOT AS EXPECTED" if self.failed else "as expected"
        if not self.verdicts:
            return "INFRA" if self.failed else "PASS"
        from superweight.verdict import combine  # here, since it is there once there are verdicts

        return combine(self.verdicts.values())


class Tally:
    """Counts tests as they end.

    Args:
        roles: of every cell of the run, by `model/recipe`.
    """

    def __init__(self, roles: dict[str, str]) -> None:
        self._roles = roles
        self._known: set[str] = set()
        self._left: dict[str, Test] = {}
        self._took: dict[str, list[float]] = {}
        self._running: dict[str, float] = {}
        self.cells: dict[str, CellTally] = {}
        self.tests = 0

    def expect(self, nodeids: Iterable[str]) -> None:
        """These tests will run; those that are known already count once."""
        for nodeid in nodeids:
            test = Test.of(nodeid, self._roles)
            if test is not None and nodeid not in self._known:
                self._known.add(nodeid)
                self._left[nodeid] = test
                self.cells.setdefault(test.cell, CellTally(self._roles[test.cell])).left += 1
                self.tests += 1

    def knows(self, nodeid: str) -> bool:
        """Whether this is a test of a cell of the run."""
        return nodeid in self._known

    def spent(self, nodeid: str, seconds: float) -> None:
        """A phase of a test took so long."""
        self._running[nodeid] = self._running.get(nodeid, 0.0) + seconds

    def end(self, nodeid: str, gates: dict[str, Verdict], *, failed: bool) -> CellTally | None:
        """A test ended.

        Returns:
            its cell if that was the last of it.

        """
        test = self._left.pop(nodeid, None)
        if test is None:
            return None
        seconds = self._running.pop(nodeid, 0.0)
        self._took.setdefault(test.kind, []).append(seconds)
        cell = self.cells[test.cell]
        cell.left -= 1
        cell.seconds += seconds
        cell.failed |= failed
        cell.verdicts.update(gates)
        return None if cell.left else cell

    @property
    def done(self) -> int:
        """Tests that ended."""
        return self.tests - len(self._left)

    @property
    def seconds_left(self) -> float | None:
        """What tests of the same kind took, for every test that is left; None before there is anything to go by."""
        if not self._took:
            return None
        usual = {kind: statistics.median(found) for kind, found in self._took.items()}
        other = statistics.median([seconds for found in self._took.values() for seconds in found])
        return sum(usual.get(test.kind, other) for test in self._left.values())
