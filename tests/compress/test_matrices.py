"""A recipe takes one matrix after another, as plain tensors: what it makes of them is what a loaded model gets."""

import pytest
import torch

from superweight.cards.base import Coordinate
from superweight.checkpoint.bits import same_bits
from superweight.compress import Matrix, apply, foreign_source, recipe_of

METHODS = [
    {"kind": "rtn", "bits": 4, "granularity": "tensor"},
    {"kind": "rtn", "bits": 3, "granularity": "channel"},
    {"kind": "rtn", "bits": 4, "granularity": "group", "group_size": 12},
    {"kind": "clip-restore", "bits": 4, "granularity": "block", "block_size": 100, "z": 2.0},
    {"kind": "clip-restore", "bits": 3, "granularity": "group", "group_size": 16, "z": "search"},
    {"kind": "w8a8", "weights": "channel", "activations": "token", "super_activations": "handled"},
    {
        "kind": "w8a8", "weights": "tensor", "activations": "tensor", "super_activations": "naive",
        "execution": "integer", "keep_super_weights": True,
    },
    {
        "kind": "integer", "bits": 4, "symmetric": False, "granularity": "group", "group_size": 8, "z": 2.0,
        "super_weights": "restored",
    },
    {"kind": "float8", "granularity": "channel", "activations": "token"},
    {"kind": "scale-super-weights", "factor": 0.5},
    {"kind": "roll-channels"},
]  # fmt: skip


def from_file(loaded, where):
    """Matrices as one reads them from a file: copies, one at a time, with nothing of the model about them."""
    down = loaded.architecture.down_projection(where).name
    for weight in loaded.architecture.linear_weights:
        for expert in [None] if weight.experts is None else range(weight.experts):
            held = [where] if (weight.name, expert) == (down, where.expert) else []
            yield Matrix(
                weight.name,
                weight.stored(expert).clone().contiguous(),
                loaded.dtype,
                transposed=weight.transposed,
                expert=expert,
                super_weights=held,
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "gpt_oss"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(str(value) for value in method.values()))
def test_single_matrices_get_the_bits_of_a_loaded_model(tiny, context, recipe, method, kind, dtype):
    loaded = tiny(kind, dtype)
    where = Coordinate(layer=1, expert=2 if kind in ("mixtral", "gpt_oss") else None, row=5, column=33)
    loaded.architecture.scalar(where).fill_(7.321)
    card = recipe(**method)
    alone = recipe_of(card.method)
    bits, made = 0, {}
    with torch.no_grad():
        for matrix in from_file(loaded, where):
            bits += sum(alone.compress(matrix).values())
            made[matrix.key] = matrix
    weights = {weight.name: weight for weight in loaded.architecture.linear_weights}
    with apply(card, context(loaded, where)) as applied:
        assert bits == applied.size.bits
        for (name, expert), matrix in made.items():
            assert same_bits(matrix.stored, weights[name].stored(expert).contiguous()), matrix.label
        assert {matrix.name for matrix in made.values() if matrix.changed} == set(applied.changed)
        assert {matrix.name for matrix in made.values() if matrix.written} == set(applied.rewritten)
        key = (loaded.architecture.down_projection(where).name, where.expert)
        assert torch.equal(alone.stored(made[key], where), applied.stored(where))


def test_progress_is_told_weight_by_weight(tiny, context, recipe):
    seen = []
    card = recipe(**METHODS[1])
    with apply(card, context(tiny("mixtral")), progress=lambda done, planned: seen.append((done, planned))):
        pass
    assert seen == [(done, 12) for done in range(1, 13)]  # a layer: q, k, v, o, and two stacks of experts


def test_what_is_not_written_is_not_said_to_be():
    matrix = Matrix("w", torch.ones(3, 2), torch.bfloat16, transposed=True)
    assert (matrix.written, matrix.changed) == (False, False)
    matrix.put(matrix.flat([]), torch.zeros(0))
    assert not matrix.written
    matrix.write(matrix.values, torch.ones(2, 3))
    assert (matrix.written, matrix.changed) == (True, False)
    matrix.put(matrix.flat([Coordinate(layer=0, row=1, column=2)]), torch.tensor([1 / 3]))
    assert matrix.changed
    assert matrix.stored[2, 1].item() == torch.tensor(1 / 3).bfloat16().item()
    assert matrix.stored.sum().item() == pytest.approx(5 + 0.333984375)


def test_single_scalars_are_kept_for_undo_alone(tiny, context, recipe, place, monkeypatch):
    """Zeroing one weight must not copy a model."""
    monkeypatch.setattr("superweight.compress.undo_log.UndoLog.keep", lambda log, weight: pytest.fail(weight.name))
    loaded = tiny()
    before = loaded.architecture.scalar(place).clone()
    with apply(recipe(kind="prune-super-weights"), context(loaded, place)) as applied:
        assert applied.changed
    assert torch.equal(loaded.architecture.scalar(place), before)


def test_figures_of_built_in_kinds_are_keyed_by_this_librarys_source(recipe):
    assert foreign_source(recipe(kind="no-op").method) == ""
