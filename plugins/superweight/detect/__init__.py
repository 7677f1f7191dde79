"""Super weights and super activations of a model, and what they do, measured."""

from superweight.detect.ablation import zeroed
from superweight.detect.detector import detect, layer_peaks
from superweight.detect.result import Detection, Group, SuperActivation, SuperWeight
from superweight.detect.settings import Thresholds
from superweight.detect.table import as_table

__all__ = [
    "Detection",
    "Group",
    "SuperActivation",
    "SuperWeight",
    "Thresholds",
    "as_table",
    "detect",
    "layer_peaks",
    "zeroed",
]
