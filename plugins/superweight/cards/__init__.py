"""Cards: models, recipes, corpora, tasks, gates, tiers and waivers as validated data."""

from superweight.cards.base import Coordinate, KnownSuperWeight, Status
from superweight.cards.cells import Cell, baseline_recipe, cells
from superweight.cards.corpus import CorpusCard
from superweight.cards.gate import GateCard
from superweight.cards.gate_book import GateBook
from superweight.cards.gate_kinds import GateKind
from superweight.cards.library import Library, model_from_argument, recipes_of_artefacts
from superweight.cards.load import builtin_cards, load_library, read_card, recipe_from_argument
from superweight.cards.model import ModelCard, Role
from superweight.cards.recipe import RecipeCard
from superweight.cards.source import DirectorySource, GgufSource, HubSource, Source, WheelSource
from superweight.cards.task import TaskCard
from superweight.cards.tier import TierCard, TierPerplexity, TierTask
from superweight.cards.waiver import WaiverCard

__all__ = [
    "Cell",
    "Coordinate",
    "CorpusCard",
    "DirectorySource",
    "GateBook",
    "GateCard",
    "GateKind",
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
    "WaiverCard",
    "WheelSource",
    "baseline_recipe",
    "builtin_cards",
    "cells",
    "load_library",
    "model_from_argument",
    "read_card",
    "recipe_from_argument",
    "recipes_of_artefacts",
]
