"""Thresholds of detection, with their reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of detection. The defaults find every published kind of super weight; none depends on a model.

    Attributes:
        massive: a residual entry is massive if it exceeds this many times the median magnitude of the residual stream
            after the same layer. Sun et al. (arXiv:2402.17762) use 1000 on 7B models; a small model's may begin
            at some hundreds, and ordinary outlier channels end at about a hundred.
        of_largest: and if it is at least this share of the largest entry after the same layer of the untouched model,
            so that zeroing one cause does not lower the bar for others.
        written: a layer writes an entry if it adds at least this share of it, with its sign.
        persist_layers: an entry must outlast this many further layers; what is written later does nothing to the model.
        persist_share: to outlast is to keep at least this share of its magnitude.
        explained: the fewest terms of Y[t, r] = Σ_k X[t, k]·W[r, k] that make up this share of it are looked at …
        term: … of which only those that are at least this share of it are candidates …
        concentrated: … and only if those make up this share together: else no single weight is behind the entry.
        remains: once candidates are zeroed, only entries of at least this share of the layer's largest before are
            explained: the peak counts as suppressed below it, and what then stands out was never massive beside it.
        spoke: another row of a candidate's column is a candidate too if its term is massive and at least this share of
            the column's largest.
        entries: at most this many entries are kept a layer.
        candidates: at most this many weights are measured, largest term first.
        rounds: at most this many times candidates are zeroed and the prompt traced again.
        floor: a perplexity ratio below this is no harm, whatever its significance: 5 % is far above what a change of
            text, dtype or device does, and far below what the loss of a super weight does.
        on_top: a weight that is harmless alone does harm on top of causal ones if it multiplies perplexity by this: the
            perplexity of a wrecked model moves by tens of percent for no reason.
        confidence: one-sided confidence with which harm must exceed the null.
        block: consecutive tokens whose differences count as one observation, since neighbours are not independent.
        null_groups: groups of equally large other weights zeroed in the same matrix, and as many in other layers.
        window: tokens a window of the confirmation text.
        windows: at most this many windows of the built-in text; a text of the caller's is used whole.
        prompt_tokens: at most this many tokens of the prompt are traced.

    """

    massive: float = 200.0
    of_largest: float = 0.1
    written: float = 0.1
    persist_layers: int = 2
    persist_share: float = 0.5
    explained: float = 0.8
    term: float = 0.2
    concentrated: float = 0.5
    remains: float = 0.5
    spoke: float = 0.25
    entries: int = 32
    candidates: int = 24
    rounds: int = 4
    floor: float = 1.05
    on_top: float = 2.0
    confidence: float = 0.99
    block: int = 32
    null_groups: int = 3
    window: int = 256
    windows: int = 3
    prompt_tokens: int = 128
