"""Finding the super weights of a model and proving by measurement that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from superweight.cards.base import Coordinate, KnownSuperWeight
from superweight.checkpoint.bits import hexadecimal
from superweight.checkpoint.loading import LoadedModel
from superweight.detect.ablation import Ablation, zeroed
from superweight.detect.candidates import Candidate, Proposal, propose
from superweight.detect.confirm import Confirmation, Finding, Say
from superweight.detect.null import Suspects
from superweight.detect.result import Detection, SuperActivation, SuperWeight
from superweight.detect.settings import Thresholds
from superweight.detect.text import make_prompt, make_windows
from superweight.detect.trace import Entry, Prompt, Trace, trace
from superweight.evidence.measured import LayerPeaks

_ORDER = {"causal": 0, "spoke": 1, "inert": 2}


def detect(
    loaded: LoadedModel,
    *,
    known: Sequence[KnownSuperWeight] = (),
    prompt: str | None = None,
    text_ids: torch.Tensor | Sequence[int] | None = None,
    progress: Say | None = None,
    settings: Thresholds | None = None,
) -> Detection:
    """Find super weights (arXiv:2411.07191, §3.1) and measure what each does.

    Candidates come from one forward pass on one prompt, refined by zeroing and tracing again; their standing comes from
    ablation on a short text, singly and jointly, against equally large other weights. The model is left as it was,
    bit for bit, also if this is interrupted.

    Args:
        loaded: the model, on any device.
        known: coordinates to be measured besides those found, from a model card.
        prompt: what to trace; a short built-in text if not given.
        text_ids: token ids `(n,)`, without BOS, on which effects are measured; built-in prose if not given.
        progress: called with a line of text for each step.
        settings: thresholds.

    Returns:
        the examined weights with their standing. `Detection.found` is empty if the model has no super weights.

    Raises:
        InfraError: a known coordinate lies outside the model, activations are not finite, a text is too short, or a
            mixture cannot be watched.

    """
    settings = settings or Thresholds()
    say = progress or (lambda _: None)
    for where in known:
        loaded.architecture.scalar(where)  # names the coordinate if it is not in this model
    asked = make_prompt(loaded, prompt, settings)
    windows = make_windows(loaded, text_ids, settings)
    proposal = propose(loaded, asked, settings)
    say(f"{len(proposal.candidates)} candidates from {proposal.rounds} forward passes of the prompt")
    coordinates = _coordinates(proposal, known)
    ablation = Ablation(loaded, windows, confidence=settings.confidence, block=settings.block)
    confirmation = Confirmation(loaded, ablation, _suspects(proposal, coordinates), settings, say)
    confirmation.run(coordinates, [candidate.coordinate for candidate in proposal.candidates])
    weights, activations = _Describer(loaded, asked, proposal, settings).describe(list(confirmation.findings.values()))
    return Detection(
        super_weights=weights,
        super_activations=activations,
        groups=tuple(confirmation.groups),
        peaks=tuple(proposal.base.peaks),
        perplexity=ablation.perplexity,
        tokens=len(ablation.base_nll),
        prompt=asked.text,
        rounds=proposal.rounds,
        settings=asdict(settings),
    )


def layer_peaks(loaded: LoadedModel) -> tuple[LayerPeaks, ...]:
    """The largest entries at each layer on detection's own prompt, of the model as it is now, under a recipe or not.

    Raises:
        InfraError: activations are not finite (`non-finite`), or a mixture cannot be watched (`unsupported`).

    """
    settings = Thresholds()
    return tuple(trace(loaded, make_prompt(loaded, None, settings), settings).peaks)


def _coordinates(proposal: Proposal, known: Sequence[KnownSuperWeight]) -> list[Coordinate]:
    every = [candidate.coordinate for candidate in proposal.candidates] + [weight.coordinate for weight in known]
    return list({where.key: where for where in every}.values())


def _suspects(proposal: Proposal, coordinates: Sequence[Coordinate]) -> Suspects:
    rows = {entry.channel for entry in proposal.base.entries} | {where.row for where in coordinates}
    return Suspects(frozenset(rows), frozenset((*where.key[:2], where.column) for where in coordinates))


class _Describer:
    """Puts what was traced and what was measured together."""

    def __init__(self, loaded: LoadedModel, prompt: Prompt, proposal: Proposal, settings: Thresholds) -> None:
        self._loaded = loaded
        self._prompt = prompt
        self._base = proposal.base
        self._settings = settings
        self._candidates = {candidate.coordinate.key: candidate for candidate in proposal.candidates}
        self._activations: list[SuperActivation] = []

    def describe(self, findings: list[Finding]) -> tuple[tuple[SuperWeight, ...], tuple[SuperActivation, ...]]:
        """Super weights by standing and effect, and their super activations, each once."""
        findings.sort(key=lambda finding: (_ORDER[finding.status], -finding.effect.ratio))
        weights = tuple(self._weight(finding) for finding in findings)
        return weights, tuple(self._activations)

    def _weight(self, finding: Finding) -> SuperWeight:
        where = finding.coordinate
        candidate = self._candidates.get(where.key)
        entry = self._entry(where, candidate)
        activation = self._activation(where, entry)
        index = self._activations.index(activation)
        scalar = self._loaded.architecture.scalar(where)
        return SuperWeight(
            coordinate=where,
            value=float(scalar),
            bits=hexadecimal(scalar),
            dtype=str(scalar.dtype).removeprefix("torch."),
            status=finding.status,
            effect=finding.effect.ratio,
            interval=finding.effect.interval,
            group=finding.group,
            group_effect=finding.group_effect,
            null_effect=finding.null,
            activation=index,
            contribution=candidate.share if candidate else None,
            input_value=candidate.input_value if candidate else None,
            suppression=self._suppression(where, entry, activation),
            origin="detection" if candidate else "card",
        )

    def _entry(self, where: Coordinate, candidate: Candidate | None) -> Entry:
        """The entry a candidate writes, with its value in the untouched model; the channel's largest for a card's."""
        after = self._base.residual[where.layer + 1]
        if candidate:
            value = float(after[(*candidate.entry.place, where.row)])
            return replace(candidate.entry, value=value)
        row, token = divmod(int(after[:, :, where.row].float().abs().argmax()), after.shape[1])
        value = float(after[row, token, where.row])
        grown = value - float(self._base.residual[where.layer][row, token, where.row])
        return Entry(where.layer, (row, token), where.row, value, grown)

    def _activation(self, where: Coordinate, entry: Entry) -> SuperActivation:
        row, token = entry.place
        history = self._base.history(entry.place, entry.channel)
        first, last = _plateau(history, entry.layer, self._settings.persist_share)
        peak_layer = max(range(first, last + 1), key=lambda layer: abs(history[layer]))
        token_id = int(self._prompt.ids[row, token])
        activation = SuperActivation(
            layer=entry.layer,
            module=self._loaded.architecture.down_projection(where).name.removesuffix(".weight"),
            token=token,
            token_id=token_id,
            token_text=str(self._loaded.tokenizer.decode([token_id])),
            bos=self._prompt.bos[row],
            channel=entry.channel,
            value=entry.value,
            first_layer=first,
            last_layer=last,
            peak=history[peak_layer],
            peak_layer=peak_layer,
        )
        if activation not in self._activations:
            self._activations.append(activation)
        return activation

    def _suppression(self, where: Coordinate, entry: Entry, activation: SuperActivation) -> float:
        with zeroed(self._loaded, [where]):
            without: Trace = trace(self._loaded, self._prompt, self._settings)
        left = without.history(entry.place, entry.channel)[activation.peak_layer]
        return 1 - abs(left / activation.peak) if activation.peak else 0.0


def _plateau(history: list[float], layer: int, share: float) -> tuple[int, int]:
    """First and last of the consecutive layers around `layer` after which the entry keeps `share` of its size."""
    first = last = layer
    least, sign = share * abs(history[layer]), 1 if history[layer] >= 0 else -1
    while first > 0 and history[first - 1] * sign >= least:
        first -= 1
    while last + 1 < len(history) and history[last + 1] * sign >= least:
        last += 1
    return first, last
