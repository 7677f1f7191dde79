"""Reports: HTML, Markdown and JSON from evidence alone."""

from superweight.report.directory import render, write_run
from superweight.report.document import (
    SCHEMA_VERSION,
    CellDocument,
    RunDocument,
    RunInfo,
    build_document,
    json_schema,
    read_document,
    strict_json,
    to_json,
)
from superweight.report.looking_back import look_back
from superweight.report.run_snapshots import snapshots_of
from superweight.report.table import terminal_table

__all__ = [
    "SCHEMA_VERSION",
    "CellDocument",
    "RunDocument",
    "RunInfo",
    "build_document",
    "json_schema",
    "look_back",
    "read_document",
    "render",
    "snapshots_of",
    "strict_json",
    "terminal_table",
    "to_json",
    "write_run",
]
