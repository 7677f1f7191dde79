"""`report.html`: one self-contained page, rendered from the run's document alone."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from superweight.report.document import RunDocument
from superweight.report.format import (
    SYMBOLS,
    count,
    detectable,
    difference,
    margin,
    number,
    verdict_label,
    verdict_text,
)
from superweight.report.markdown import counts, headline, notes, spent
from superweight.report.table import cell_rows


def render_html(document: RunDocument) -> str:
    """The report as one HTML page without scripts, network requests or outside files. Every string is escaped."""
    environment = Environment(
        loader=PackageLoader("superweight.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    table = cell_rows(document)
    records = [
        {"cell": cell, "shown": shown} for cell, shown in zip(document.cells, table.to_dict("records"), strict=True)
    ]
    return environment.get_template("report.html").render(
        document=document,
        headline=headline(document),
        device=document.run.environment.get("device", ""),
        counts=counts(document),
        spent=spent(document),
        notes=notes(document),
        cells=table,
        cell_records=records,
        symbols=SYMBOLS,
        label=verdict_label,
        number=number,
        difference=difference,
        margin=margin,
        count=count,
        detectable=detectable,
        verdict_text=verdict_text,
    )
