"""Evidence: what was measured, keyed, and written to disk."""

from superweight.evidence.key import content_key
from superweight.evidence.measured import (
    CellEvidence,
    Failure,
    Perplexity,
    Sanity,
    Size,
    StoredWeight,
    Verdict,
    ZeroShot,
)
from superweight.evidence.write import write_items, write_text

__all__ = [
    "CellEvidence",
    "Failure",
    "Perplexity",
    "Sanity",
    "Size",
    "StoredWeight",
    "Verdict",
    "ZeroShot",
    "content_key",
    "write_items",
    "write_text",
]
