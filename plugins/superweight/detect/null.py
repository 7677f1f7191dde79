"""The null that an effect is held against: equally large other weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from superweight.cards.base import Coordinate
from superweight.checkpoint.architecture import LinearWeight
from superweight.checkpoint.loading import LoadedModel


@dataclass(frozen=True)
class Suspects:
    """What no null weight may touch, since it may take part in a massive activation.

    Attributes:
        rows: channels of the residual stream that hold a massive entry anywhere, in every layer.
        columns: `(layer, expert or -1, column)` of the candidates: the same massive input drives other rows there.

    """

    rows: frozenset[int]
    columns: frozenset[tuple[int, int, int]]


def null_groups(
    loaded: LoadedModel, members: Sequence[Coordinate], suspects: Suspects, count: int
) -> list[tuple[Coordinate, ...]]:
    """Groups of as many weights as `members`, each as near as can be in magnitude to its member.

    Args:
        loaded: the model.
        members: the weights to be matched.
        suspects: what to keep away from.
        count: groups in the members' own matrices, and the most in other layers, spread evenly over the depth.

    """
    own = [_places(loaded, members, suspects, count, shift=None)]
    others = [_places(loaded, members, suspects, 1, shift=layer) for layer in _other_layers(loaded, members, count)]
    return [group for groups in (*own, *others) for group in groups]


def _other_layers(loaded: LoadedModel, members: Sequence[Coordinate], count: int) -> list[int]:
    taken = {member.layer for member in members}
    free = [layer for layer in range(len(loaded.architecture.layers)) if layer not in taken]
    if len(free) <= count:
        return free
    return [free[round((index + 0.5) * len(free) / count - 0.5)] for index in range(count)]


def _places(
    loaded: LoadedModel, members: Sequence[Coordinate], suspects: Suspects, count: int, *, shift: int | None
) -> list[tuple[Coordinate, ...]]:
    """`count` disjoint groups in the members' own layers, or in layer `shift`; fewer if weights run out."""
    used: set[tuple[int, ...]] = set()
    groups: list[tuple[Coordinate, ...]] = []
    streams = [_nearest(loaded, member, suspects, count * len(members), shift) for member in members]
    for _ in range(count):
        group = [_next_unused(stream, used) for stream in streams]
        found = tuple(where for where in group if where is not None)
        if len(found) == len(members):
            groups.append(found)
    return groups


def _next_unused(stream: Iterator[Coordinate], used: set[tuple[int, ...]]) -> Coordinate | None:
    for where in stream:
        if where.key not in used:
            used.add(where.key)
            return where
    return None


def _nearest(
    loaded: LoadedModel, member: Coordinate, suspects: Suspects, count: int, shift: int | None
) -> Iterator[Coordinate]:
    """Unsuspected weights of a down projection, nearest in magnitude to a member first."""
    layer = member.layer if shift is None else shift
    weight = _down_projection(loaded, layer, member.expert)
    if weight is None:
        return
    expert = None if weight.experts is None else (member.expert or 0) % weight.experts
    magnitude = loaded.architecture.scalar(member).float().abs()
    distance = (weight.matrix(expert).detach().float().abs() - magnitude).abs()  # (rows, columns)
    distance[sorted(suspects.rows)] = torch.inf
    key = -1 if expert is None else expert
    columns = [column for at, which, column in suspects.columns if (at, which) == (layer, key)]
    distance[:, columns] = torch.inf
    near = distance.flatten().topk(min(count, distance.numel()), largest=False)
    usable = near.indices[torch.isfinite(near.values)].tolist()
    for row, column in (divmod(index, distance.shape[1]) for index in usable):
        yield Coordinate(layer=layer, expert=expert, row=row, column=column)


def _down_projection(loaded: LoadedModel, layer: int, expert: int | None) -> LinearWeight | None:
    found = [weight for weight in loaded.architecture.down_projections if weight.layer == layer]
    alike = [weight for weight in found if (weight.experts is None) == (expert is None)]
    return next(iter(alike or found), None)
