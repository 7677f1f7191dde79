"""Writes what is shipped: artefacts, and what goes beside them."""
