"""Runs: the document of one, the snapshots that are kept of it, and how it compares with earlier ones."""
