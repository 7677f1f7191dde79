"""Evidence: what was measured, keyed, and written to disk."""

from superweight.evidence.journal import Journal
from superweight.evidence.key import content_key
from superweight.evidence.measured import (
    CellEvidence,
    Coverage,
    DetectionEvidence,
    Failure,
    LayerPeaks,
    Noise,
    Peak,
    Perplexity,
    Sanity,
    Size,
    StoredWeight,
    Verdict,
    ZeroShot,
)
from superweight.evidence.store import Store
from superweight.evidence.write import write_items, write_text

__all__ = [
    "CellEvidence",
    "Coverage",
    "DetectionEvidence",
    "Failure",
    "Journal",
    "LayerPeaks",
    "Noise",
    "Peak",
    "Perplexity",
    "Sanity",
    "Size",
    "Store",
    "StoredWeight",
    "Verdict",
    "ZeroShot",
    "content_key",
    "write_items",
    "write_text",
]
