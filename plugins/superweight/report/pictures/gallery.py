"""Which pictures a run gets, and which it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from superweight.report.document import CellDocument, RunDocument
from superweight.report.history import RunEntry
from superweight.report.pictures.figures import cells_of
from superweight.report.pictures.picture import Picture

MODELS = 6
"""So many models get pictures in one page, which stays a few megabytes then."""

_ORDER = ("REGRESSION", "INFRA", "INCONCLUSIVE", "PASS")


class Drawn(NamedTuple):
    """A picture and what the page shows of it."""

    picture: Picture
    svg: str


class Gallery(NamedTuple):
    """The pictures of a run."""

    models: dict[str, list[Drawn]]
    notes: list[str]
    """What was not drawn, and why."""


def gallery(document: RunDocument, runs: Sequence[RunEntry] = (), models: Sequence[str] = ()) -> Gallery:
    """Draw what the evidence has figures for; nothing that fails here keeps a report from being written.

    Args:
        document: of the run.
        runs: the history, in the order of time.
        models: whose pictures are wanted; the first few, those that did not pass before others, if empty.

    """
    from superweight.report.pictures.drawing import drawable

    if missing := drawable():
        return Gallery({}, [f"No pictures: {missing}."])
    every = _by_need(document)
    shown = [model for model in every if model in models] if models else every[:MODELS]
    notes = []
    if left := [model for model in every if model not in shown]:
        named = ", ".join(left[:5]) + (", …" if len(left) > 5 else "")
        notes.append(
            f"Pictures of {len(shown)} of {len(every)} models; of {named}: `superweight report DIR --pictures MODEL`."
        )
    found = {}
    for model in shown:
        drawn, said = _drawn(_wanted(document, model, runs), model)
        notes += said
        found.update({model: drawn} if drawn else {})
    return Gallery(found, notes)


def history_pictures(runs: Sequence[RunEntry], model: str, tier: str) -> tuple[list[Drawn], list[str]]:
    """The history of one model in one tier, and why there is none if it could not be drawn."""
    from superweight.report.pictures.drawing import drawable

    if missing := drawable():
        return [], [f"No pictures: {missing}."]

    def draw() -> Picture | None:
        from superweight.report.pictures.past import history_picture

        return history_picture(runs, model, tier)

    return _drawn([draw], model)


def _drawn(wanted: Sequence[Callable[[], Picture | None]], model: str) -> tuple[list[Drawn], list[str]]:
    from superweight.report.pictures.drawing import svg

    found, notes = [], []
    for draw in wanted:
        try:
            picture = draw()
            if picture is not None:
                found.append(Drawn(picture, svg(picture)))
        except Exception as error:  # a picture is not worth a report
            notes.append(f"A picture of {model} could not be drawn: {type(error).__name__}: {error}")
    return found, notes


def _wanted(document: RunDocument, model: str, runs: Sequence[RunEntry]) -> list[Callable[[], Picture | None]]:
    from superweight.report.pictures.blocks import block_picture
    from superweight.report.pictures.changes import change_picture
    from superweight.report.pictures.layers import layer_picture
    from superweight.report.pictures.past import history_picture
    from superweight.report.pictures.scales import scale_picture
    from superweight.report.pictures.size import size_picture

    cells = cells_of(document, model)
    alarms = [alarm.message for alarm in document.look_back.alarms if alarm.model == model]
    return [
        lambda: change_picture(cells, "perplexity"),
        lambda: change_picture(cells, "zero-shot"),
        lambda: size_picture(cells),
        lambda: block_picture(cells),
        lambda: layer_picture(cells),
        lambda: scale_picture(cells),
        lambda: history_picture(runs, model, document.run.tier, alarms),
    ]


def _by_need(document: RunDocument) -> list[str]:
    """Models, those that did not pass first."""
    worst: dict[str, int] = {}
    for cell in document.cells:
        rank = _ORDER.index(cell.verdict) if _decides(cell) else len(_ORDER)
        worst[cell.model] = min(rank, worst.get(cell.model, len(_ORDER)))
    return sorted(worst, key=lambda model: worst[model])


def _decides(cell: CellDocument) -> bool:
    return cell.role in ("candidate", "baseline")
