"""Recipes: compress a loaded model in place, say what was changed, and undo it bit for bit."""

from superweight.compress.context import Applied, Context
from superweight.compress.registry import RECIPES, apply
from superweight.compress.size import Size

__all__ = ["RECIPES", "Applied", "Context", "Size", "apply"]
