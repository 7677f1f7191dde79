"""Recipes: compress one matrix after another, say what was changed, and undo it bit for bit in a model in memory."""

from superweight.compress.applied import Applied, apply
from superweight.compress.context import Context
from superweight.compress.matrix import Matrix
from superweight.compress.recipe import Recipe, foreign_source, recipe_of

__all__ = ["Applied", "Context", "Matrix", "Recipe", "apply", "foreign_source", "recipe_of"]
