"""Writes what is shipped: a recipe's own codes as files that other people's engines load, and what goes beside them."""
