"""Super weights, compression recipes, evidence and verdicts: the library behind the gate."""

__version__ = "0.1.0"
