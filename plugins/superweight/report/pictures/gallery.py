"""Which pictures a run gets, and which it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from superweight.errors import InfraError
from superweight.report.pictures.figures import cells_of
from superweight.report.pictures.picture import Picture
from superweight.runs.document import RunDocument
from superweight.runs.history import RunEntry
from superweight.verdict import SEVERITY, decides, severity

MODELS = 6
"""So many models get pictures in one page, which stays a few megabytes then."""

_BACKGROUND = 2  # so many of them also get the pictures of how they react
_DECIDING = ("perplexity-by-recipe", "accuracy-by-recipe", "size-and-quality", "history")


class Drawn(NamedTuple):
    """A picture and what the page shows of it."""

    picture: Picture
    svg: str

    @property
    def background(self) -> bool:
        """Whether it tells how the model reacts rather than what may ship."""
        return self.picture.name not in _DECIDING


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
    if unknown := [model for model in models if model not in every]:
        known = ", ".join(sorted(every)) or "none"
        raise InfraError(f"no model '{unknown[0]}' in this run, whose models are: {known}.", reason="not-found")
    shown = [model for model in every if model in models] if models else every[:MODELS]
    notes = []
    if left := [model for model in every if model not in shown]:
        named = ", ".join(left[:5]) + (", …" if len(left) > 5 else "")
        notes.append(
            f"Pictures of {len(shown)} of {len(every)} models; of {named}: `superweight report DIR --pictures MODEL`."
        )
    if len(shown) > _BACKGROUND:
        named = " and ".join(shown[:_BACKGROUND])
        notes.append(
            f"How a model reacts is pictured for {named}; of others: `superweight report DIR --pictures MODEL`."
        )
    pictures: list[tuple[str, Picture]] = []
    for model in shown:
        for make in _wanted(document, model, runs, background=model in shown[:_BACKGROUND]):
            try:
                picture = make()
            except Exception as error:  # a picture is not worth a report
                notes.append(f"A picture of {model} could not be made: {type(error).__name__}: {error}")
            else:
                pictures += [] if picture is None else [(model, picture)]
    drawn, said = _drawn(pictures)
    return Gallery(drawn, notes + said)


def history_gallery(runs: Sequence[RunEntry], pairs: Sequence[tuple[str, str]]) -> Gallery:
    """The history of each tier and model, by `model, tier tier`."""
    from superweight.report.pictures.drawing import drawable

    if missing := drawable():
        return Gallery({}, [f"No pictures: {missing}."])
    from superweight.report.pictures.history import history_picture

    found = [(f"{model}, {tier} tier", history_picture(runs, model, tier)) for tier, model in pairs]
    return Gallery(*_drawn([(name, picture) for name, picture in found if picture is not None]))


def _drawn(pictures: Sequence[tuple[str, Picture]]) -> tuple[dict[str, list[Drawn]], list[str]]:
    from superweight.report.pictures.drawing import DrawingError, draw

    found: dict[str, list[Drawn]] = {}
    notes = []
    for (name, picture), svg in zip(pictures, draw([picture for _, picture in pictures]), strict=True):
        if isinstance(svg, DrawingError):
            notes.append(f"The picture {picture.name} of {name} could not be drawn: {svg}")
        else:
            found.setdefault(name, []).append(Drawn(picture, svg))
    return found, notes


def _wanted(
    document: RunDocument, model: str, runs: Sequence[RunEntry], *, background: bool
) -> list[Callable[[], Picture | None]]:
    from superweight.report.pictures.activations_by_layer import layer_picture
    from superweight.report.pictures.by_recipe import change_picture
    from superweight.report.pictures.history import history_picture
    from superweight.report.pictures.int4_block_size import block_picture
    from superweight.report.pictures.size_and_quality import size_picture
    from superweight.report.pictures.super_weight_scale import scale_picture

    cells = cells_of(document, model)
    alarms = [alarm.message for alarm in document.look_back.alarms if alarm.model == model]
    deciding: list[Callable[[], Picture | None]] = [
        lambda: change_picture(cells, "perplexity"),
        lambda: change_picture(cells, "zero-shot"),
        lambda: size_picture(cells),
        lambda: history_picture(runs, model, document.run.tier, alarms if document.look_back.run else None),
    ]
    behind: list[Callable[[], Picture | None]] = [
        lambda: change_picture(cells, "perplexity", candidates=False),
        lambda: change_picture(cells, "zero-shot", candidates=False),
        lambda: block_picture(cells),
        lambda: layer_picture(cells),
        lambda: scale_picture(cells),
    ]
    return deciding + (behind if background else [])


def _by_need(document: RunDocument) -> list[str]:
    """Models, those that did not pass first."""
    worst: dict[str, int] = {}
    for cell in document.cells:
        rank = severity(cell.verdict) if decides(cell.role) else len(SEVERITY)
        worst[cell.model] = min(rank, worst.get(cell.model, len(SEVERITY)))
    return sorted(worst, key=lambda model: worst[model])
