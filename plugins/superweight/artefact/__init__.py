"""Artefacts: compressed models as files. Reads, checks and writes them; what checks needs no torch."""
