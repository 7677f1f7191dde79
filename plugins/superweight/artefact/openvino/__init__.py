"""OpenVINO's own form of a model: a graph in XML, and its constants in a file beside it."""

from __future__ import annotations

from superweight.artefact.openvino.reader import IrReader, ir_file

__all__ = ["IrReader", "ir_file"]
