"""Explaining a verdict: the sentence with its figures, what to try next, and settings that cost less."""
