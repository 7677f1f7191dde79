"""Measuring: one cell at a time, from a checkpoint to evidence. Needs torch."""

from superweight.measure.environment import default_device, share_cores
from superweight.measure.measurer import CellMeasurer

__all__ = ["CellMeasurer", "default_device", "share_cores"]
