"""A run beside what came before it: the release it is held against, and the runs since."""

from __future__ import annotations

from pydantic import Field

from superweight.evidence.measured import Record
from superweight.runs.compare import RunComparison
from superweight.runs.drift import FigureAlarm

_SHOWN = 10  # lines of a comparison on a terminal


class LookBack(Record):
    """A run beside its release baseline and the runs before it; all of it empty where there is neither."""

    run: str = Field(default="", description="the run's name in the store; empty if it was not added to one")
    baseline: str = Field(default="", description="what became of the baseline: kept, or why there is none")
    against_release: RunComparison | None = Field(default=None, description="none if no model has a baseline yet")
    against_last: RunComparison | None = Field(default=None, description="none if there was no run before")
    alarms: list[FigureAlarm] = Field(default_factory=list, description="figures that drift")
    notes: list[str] = Field(default_factory=list, description="what could not be read or written")

    @property
    def lines(self) -> list[str]:
        """What a terminal should show of it."""
        found = [self.baseline] if self.baseline else []
        if self.against_release is not None:
            found += _told(self.against_release)
        if self.against_last is not None:
            found += _told(self.against_last)
        found += [f"{alarm.kind} since the release: {alarm.message}" for alarm in self.alarms]
        return found + [f"note: {note}" for note in self.notes]


def _told(comparison: RunComparison) -> list[str]:
    # Imported here: it writes figures as a run's document does, and the document holds this.
    from superweight.report.comparison_text import SYMBOLS, headline, sentences

    worst = ("REGRESSION", "CANNOT COMPARE", "INCONCLUSIVE")
    said = [
        f"  {SYMBOLS[verdict]} {text}"
        for model in comparison.models
        for verdict, text, decides in sentences(model)
        if decides and verdict in worst
    ]
    more = [f"  and {len(said) - _SHOWN} more"] if len(said) > _SHOWN else []
    return [f"against the {comparison.before}: {headline(comparison)}", *said[:_SHOWN], *more]
