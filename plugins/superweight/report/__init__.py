"""Reports: HTML, Markdown and JSON from evidence alone."""

from superweight.report.directory import render, write_run
from superweight.report.export import write_export
from superweight.report.store_index import keep_report, write_index
from superweight.report.table import terminal_table
from superweight.runs.document import (
    SCHEMA_VERSION,
    CellDocument,
    LeftOut,
    RunDocument,
    RunInfo,
    build_document,
    json_schema,
    strict_json,
    to_json,
)
from superweight.runs.look_back import look_back
from superweight.runs.read import read_document, snapshots_of
from superweight.runs.salvage import salvage

__all__ = [
    "SCHEMA_VERSION",
    "CellDocument",
    "LeftOut",
    "RunDocument",
    "RunInfo",
    "build_document",
    "json_schema",
    "keep_report",
    "look_back",
    "read_document",
    "render",
    "salvage",
    "snapshots_of",
    "strict_json",
    "terminal_table",
    "to_json",
    "write_export",
    "write_index",
    "write_run",
]
