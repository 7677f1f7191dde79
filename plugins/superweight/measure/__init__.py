"""Measuring: one cell at a time, from a checkpoint to evidence. Needs torch."""

from superweight.measure.workbench import Workbench

__all__ = ["Workbench"]
