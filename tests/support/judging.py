"""Cards, rules and figures by which evidence made by hand is judged."""

import math
from datetime import date

from superweight.cards import GateCard, WaiverCard
from superweight.cards.gate_book import GateBook
from superweight.evidence import Noise
from superweight.statistics.noninferiority import ErrorBudget
from superweight.verdict import Rules, gates_of, judge_cell
from support import guarded_t
from support.by_hand import BASE, WHY, perplexity, zero_shot

TODAY = date(2026, 3, 1)
WHOLE = ErrorBudget(early_share=0.0)  # all of alpha, 2.5 per cent on either side, for one analysis of all items
MARGIN = math.log(1.05)  # nats a token: what a perplexity card of 5 per cent accepts
WOBBLE = 0.002


def card(kind="perplexity", margin=0.05, **more):
    given = {"id": kind, "title": kind, "why": WHY, "date": "2026-01-31"}
    return GateCard(kind=kind, margin=margin, **(given | more))


def waiver(gate="perplexity:wiki", **more):
    given = {
        "id": "w", "model": "m", "recipe": "rtn", "ticket": "OPS-9", "why": WHY, "date": "2026-02-01",
        "expires": "2026-03-31",
    }  # fmt: skip
    return WaiverCard(gate=gate, **(given | more))


def rules(*cards, waivers=(), sequential=False, **more):
    """Margins of 5 per cent and 5 points, no stopping early, if nothing else is given."""
    book = GateBook.of(cards or (card("perplexity"), card("zero-shot")), waivers)
    return Rules(book=book, today=TODAY, sequential=sequential, **more)


def gates(cell, baseline=None, by=None, run=()):
    """Every gate of a cell, by name."""
    return {gate.gate: gate for gate in gates_of(cell, baseline, by or rules(), run)}


def judged(cell, baseline=None, by=None, run=()):
    return judge_cell(cell, gates_of(cell, baseline, by or rules(), run))


def shifted(shift, base=BASE, wobble=WOBBLE):
    """Every window moved by `shift` nats, give or take a little that sums to nothing."""
    return [nll + shift + (wobble if place % 2 == 0 else -wobble) for place, nll in enumerate(base)]


def losses(nll, base=BASE):
    """What was lost on each window, nats a token."""
    return [ours - theirs for ours, theirs in zip(nll, base, strict=True)]


def standard_error():
    """Of the mean loss of `shifted`: n·wobble² of squares over n − 1 and n."""
    return WOBBLE / math.sqrt(len(BASE) - 1)


def lost_with(p, base=BASE):
    """Windows whose mean loss is above the margin by as much as gives this p-value against the margin or less."""
    return shifted(MARGIN + guarded_t.reach(len(base), p) * WOBBLE / math.sqrt(len(base) - 1), base)


def part(nll, visited, **more):
    """A figure that stopped after visiting these windows of a text."""
    visited = list(visited)
    given = {"index": visited, "planned": len(nll)}
    return perplexity([nll[window] for window in visited], **(given | more))


def answered(chosen, target=0, choices=3, **more):
    """Items of three choices, the same one right everywhere, and what a model chose."""
    figure = zero_shot([float(choice == target) for choice in chosen], **more)
    for choice, item in zip(chosen, figure.items, strict=True):
        item["target"] = target
        item["text"] = f"Question: number {item['doc_id']}?"
        item["choices"] = [f" choice {letter}" for letter in "abc"[:choices]]
        item["choices"][target] += f" of {item['doc_id']}"  # no answer is right everywhere
        item["loglikelihoods"] = [-1.0 if place == choice else -2.0 for place in range(choices)]
        item["is_greedy"] = [False] * choices
    return figure


def noise(mean=0.0, sd=0.0, n=100, changed=0):
    return Noise(variation="eager attention", n=n, value=1.0, reference=1.0, mean=mean, sd=sd, changed=changed)
