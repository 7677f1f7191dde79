"""Kinds of recipes that compress nothing: the baseline, and damage or the lack of it that a gate must see."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from superweight.cards.methods.base import WeightsAlone


class Experiment(WeightsAlone):
    """A base of kinds that compress nothing and leave activations alone, on purpose: there is nothing to advise."""

    compresses = False

    def next_settings(self) -> list[str]:
        """Nothing: the damage is meant."""
        return []

    def settings_that_keep_super_weights(self) -> list[str]:
        """Nothing: super weights are changed on purpose, or not at all."""
        return []


class Baseline(Experiment):
    """The uncompressed model."""

    kind: Literal["baseline"]
    implementation = "superweight.compress.identity:BaselineRecipe"
    changes_nothing = True
    of_super_weights = False


class NoOp(Experiment):
    """Rewrites every weight with itself: a control that must pass."""

    kind: Literal["no-op"]
    implementation = "superweight.compress.identity:NoOpRecipe"
    changes_nothing = True
    of_super_weights = False

    def next_settings(self) -> list[str]:
        """No setting: the fault is not the recipe's."""
        return ["nothing was compressed, so this is the harness or the machine and not the model: run it again"]


class PruneSuperWeights(Experiment):
    """Zero every super weight."""

    kind: Literal["prune-super-weights"]
    implementation = "superweight.compress.pruning:PruneSuperWeightsRecipe"
    changes_nothing = False
    of_super_weights = True

    @property
    def super_weight_factor(self) -> float:
        """Zero."""
        return 0.0


class PruneSuperWeightsKeepActivation(Experiment):
    """Zero every super weight but put the super activation back by hand (arXiv:2411.07191, table 1)."""

    kind: Literal["prune-super-weights-keep-activation"]
    implementation = "superweight.compress.pruning:PruneKeepingActivationRecipe"
    changes_nothing = False
    of_super_weights = True


class PruneLargestOthers(Experiment):
    """Zero the largest weights that are not super weights."""

    kind: Literal["prune-largest-others"]
    implementation = "superweight.compress.pruning:PruneLargestOthersRecipe"
    changes_nothing = False
    of_super_weights = False

    count: int = Field(default=7000, ge=1, description="how many scalars of the decoder layers' linear weights to zero")


class ScaleSuperWeights(Experiment):
    """Multiply every super weight by a factor (arXiv:2411.07191, figure 6)."""

    kind: Literal["scale-super-weights"]
    implementation = "superweight.compress.pruning:ScaleSuperWeightsRecipe"
    changes_nothing = False
    of_super_weights = True

    factor: float

    @property
    def super_weight_factor(self) -> float:
        """The card's."""
        return self.factor


class RollChannels(Experiment):
    """Move every output channel of every linear weight on by one: no language model survives that."""

    kind: Literal["roll-channels"]
    implementation = "superweight.compress.identity:RollChannelsRecipe"
    changes_nothing = False
    of_super_weights = False
