"""Methods: what kinds of recipes there are, what parameters each takes, and what is true of it."""

from superweight.cards.methods.artefact import Artefact
from superweight.cards.methods.base import KINDS, Calibration, Method, WeightBlocks
from superweight.cards.methods.deployable import SUPER_WEIGHT_MODULES, Deployable, Float8, Integer
from superweight.cards.methods.experiments import (
    Baseline,
    NoOp,
    PruneLargestOthers,
    PruneSuperWeights,
    PruneSuperWeightsKeepActivation,
    RollChannels,
    ScaleSuperWeights,
)
from superweight.cards.methods.int8 import W8A8, SmoothQuant
from superweight.cards.methods.lookup import AnyMethod, kind_named, method_of
from superweight.cards.methods.quantiser import Quantiser
from superweight.cards.methods.rounding import (
    CLIPPED_AND_RESTORED,
    TO_NEAREST,
    ClipRestore,
    Granularity,
    Rounding,
    RoundToNearest,
)

__all__ = [
    "CLIPPED_AND_RESTORED",
    "KINDS",
    "SUPER_WEIGHT_MODULES",
    "TO_NEAREST",
    "W8A8",
    "AnyMethod",
    "Artefact",
    "Baseline",
    "Calibration",
    "ClipRestore",
    "Deployable",
    "Float8",
    "Granularity",
    "Integer",
    "Method",
    "NoOp",
    "PruneLargestOthers",
    "PruneSuperWeights",
    "PruneSuperWeightsKeepActivation",
    "Quantiser",
    "RollChannels",
    "RoundToNearest",
    "Rounding",
    "ScaleSuperWeights",
    "SmoothQuant",
    "WeightBlocks",
    "kind_named",
    "method_of",
]
