"""Cards: models, recipes, corpora, tasks, gates and tiers as validated data."""

from superweight.cards.base import Coordinate, KnownSuperWeight, Status
from superweight.cards.cells import Cell, baseline_recipe, cells
from superweight.cards.data import CorpusCard, TaskCard
from superweight.cards.gate import GateCard, TierCard, TierPerplexity, TierTask
from superweight.cards.library import Library, builtin_cards, load_library, model_from_argument, read_card
from superweight.cards.model import ModelCard, Role
from superweight.cards.recipe import RecipeCard
from superweight.cards.source import DirectorySource, GgufSource, HubSource, Source, WheelSource

__all__ = [
    "Cell",
    "Coordinate",
    "CorpusCard",
    "DirectorySource",
    "GateCard",
    "GgufSource",
    "HubSource",
    "KnownSuperWeight",
    "Library",
    "ModelCard",
    "RecipeCard",
    "Role",
    "Source",
    "Status",
    "TaskCard",
    "TierCard",
    "TierPerplexity",
    "TierTask",
    "WheelSource",
    "baseline_recipe",
    "builtin_cards",
    "cells",
    "load_library",
    "model_from_argument",
    "read_card",
]
