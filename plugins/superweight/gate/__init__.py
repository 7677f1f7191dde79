"""The gate as a library: what a run asks, measures, judges and writes, whatever schedules its cells.

`Settings` say what is gated, a `Plan` lists the cells, and a `GateRun` measures them, judges them and writes the run. A
run that is spread over processes needs `superweight.gate.merge`, which says what goes between them.

Names are imported when they are first used: settings need nothing, a plan needs cards, a run needs what judges and
reports, and only the first cell that is measured needs torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superweight.gate.plan import Plan, RequestedGate
    from superweight.gate.provenance import Provenance
    from superweight.gate.run import GateRun
    from superweight.gate.settings import Settings

__all__ = ["GateRun", "Plan", "Provenance", "RequestedGate", "Settings"]

_MODULES = {
    "GateRun": "run",
    "Plan": "plan",
    "Provenance": "provenance",
    "RequestedGate": "plan",
    "Settings": "settings",
}


def __getattr__(name: str) -> Any:
    """A public name, imported from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
