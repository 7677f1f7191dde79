"""A picture: a chart with the finding that it shows, a description, and its figures as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    import altair as alt

    Chart = alt.Chart | alt.LayerChart | alt.FacetChart | alt.HConcatChart | alt.VConcatChart


@dataclass(frozen=True)
class Picture:
    """One chart.

    Attributes:
        name: what tells it from the others of a model, fit for a file name.
        title: the finding, a sentence.
        description: what is drawn, for who cannot see it.
        table: what is drawn, as text.
        chart: the chart, in colours of the page.

    """

    name: str
    title: str
    description: str
    table: pd.DataFrame
    chart: Chart


Rows = list[dict[str, Any]]
