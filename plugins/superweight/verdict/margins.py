"""Whether a margin may be used here: decided for this n and machine, still valid, and coarser than the noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Literal

from superweight.cards.gate import GateCard
from superweight.cards.gate_kinds import gate_kind
from superweight.cards.waiver import WaiverCard
from superweight.evidence.measured import Noise
from superweight.verdict.kinds import loss_margin, scale_of

Staleness = Literal["gate-expired", "gate-n", "gate-device"]

_SOON = 30  # days before its expiry that a card begins to say so: time to decide the margin anew


def why_not_applicable(card: GateCard, *, planned: int, device_class: str, today: date) -> tuple[Staleness, str] | None:
    """Why a run must not be judged by this card, if so.

    Versions that differ are no reason, since they change with every release; `notes` tells them.

    Args:
        card: the gate card.
        planned: windows or items that the run measures unless it stops early.
        device_class: of the run's machine.
        today: the day of the run.

    Returns:
        failure class and sentence, the first that holds of expiry, n and device class.

    """
    who = f"gate card '{card.id}'"
    if not card.valid_on(today):
        return "gate-expired", (
            f"{who} expired on {card.expires}{_ticket(card.ticket)} and today is {today.isoformat()}: "
            "decide its margin anew, then give it a new date and expires."
        )
    if card.n is not None and card.n != planned:
        what = gate_kind(card.kind).items
        return "gate-n", (
            f"{who} was decided for {card.n} {what}{_ticket(card.ticket)} and this run plans {planned}: measure "
            f"{card.n}, or decide the margin for {planned} {what} and give the card that n."
        )
    if card.device_class is not None and not _begins(device_class, card.device_class):
        return "gate-device", (
            f"{who} was decided on '{card.device_class}'{_ticket(card.ticket)} and this run is on '{device_class}': "
            f"run it there, or decide the margin on this machine and give the card its device_class."
        )
    return None


def warnings(card: GateCard, *, versions: Mapping[str, str], today: date) -> list[str]:
    """What a reader should know about a card that holds all the same.

    Args:
        card: the gate card.
        versions: packages of the run and their versions.
        today: the day of the run.

    Returns:
        sentences: versions that differ from the card's, and an expiry that is near.

    """
    who = f"gate card '{card.id}'"
    found = []
    for package, version in card.versions.items():
        here = versions.get(package)
        if here is None:
            found.append(f"{who} was decided with {package} {version}, which this run does not record")
        elif not _begins(here, version):
            found.append(f"{who} was decided with {package} {version}, this run has {here}")
    if card.expires is not None and card.valid_on(today):
        left = (date.fromisoformat(card.expires) - today).days
        if left <= _SOON:
            found.append(f"{who} expires on {card.expires}, in {_days(left)}{_ticket(card.ticket)}")
    return found


def noise_floor(noise: Noise) -> float:
    """What an A/A repeat cannot tell from nothing: |mean| + 2·sd/√n, its bias and twice its standard error.

    Returns:
        in the unit of the repeat, nats a token or the metric's; infinity if nothing finite was repeated.

    """
    if noise.n < 1 or not (math.isfinite(noise.mean) and math.isfinite(noise.sd)):
        return math.inf
    return abs(noise.mean) + 2 * noise.sd / math.sqrt(noise.n)


def below_noise_floor(card: GateCard, noise: Noise) -> str | None:
    """Why a margin below the noise floor cannot be judged by, if it is.

    Args:
        card: the gate card.
        noise: an A/A repeat of what the card gates.

    Returns:
        a sentence with both figures, what was repeated and what to do; None if the margin is at or above the floor.

    """
    floor, margin = noise_floor(noise), loss_margin(card)
    if margin >= floor:
        return None
    unit, what = scale_of(card.kind).loss_unit, gate_kind(card.kind).items
    limit = f"the margin of gate card '{card.id}' ({margin:.2g}{unit})"
    repeated = f"the uncompressed model, measured again over {noise.n} {what} with {noise.variation},"
    if not math.isfinite(floor):
        return f"{repeated} gave no finite difference, so nothing says that {limit} is above the noise."
    return (
        f"{limit} is below the noise floor ({floor:.2g}{unit}): {repeated} differs from itself by "
        f"{noise.mean:+.2g}{unit} on average (sd {noise.sd:.2g}; {noise.changed} of {noise.n} {what} changed). "
        f"No verdict at this margin would be about the candidate. Measure more {what}, compute in float32 "
        "(--superweight-dtype float32), or widen the margin."
    )


def expired(waiver: WaiverCard, today: date) -> str | None:
    """What to say of a waiver that would have held, had its time not run out; None while it holds."""
    if waiver.valid_on(today):
        return None
    return (
        f"waiver '{waiver.id}' ({waiver.ticket}) of {waiver.gate} on {waiver.model}/{waiver.recipe} expired on "
        f"{waiver.expires}, so the failure counts again: mend it, or waive it anew with a date, a reason and an expiry."
    )


def _begins(found: str, prefix: str) -> bool:
    """Whether `found` begins with `prefix` as whole words: an A100 is no A10, and 2.90 is no 2.9."""
    return found.startswith(prefix) and not found[len(prefix) :][:1].isalnum()


def _ticket(ticket: str) -> str:
    return f" ({ticket})" if ticket else ""


def _days(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"
