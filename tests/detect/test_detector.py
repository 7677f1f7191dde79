"""What detection says of card coordinates, of BOS, of stored bits; and that it leaves the model alone."""

import json
import math
import struct

import pytest
import torch

from superweight.cards.base import Coordinate, KnownSuperWeight
from superweight.detect import Thresholds, as_table, detect, zeroed
from superweight.detect.ablation import Ablation
from superweight.detect.candidates import propose
from superweight.detect.null import Suspects, null_groups
from superweight.detect.text import make_prompt, make_windows
from superweight.detect.trace import trace
from superweight.errors import InfraError
from support.tiny import HIDDEN, INNER, Plant, load, tiny, tiny_model, tiny_text, tiny_tokenizer

WHERE = Coordinate(layer=1, row=5, column=7)


@pytest.fixture(scope="module")
def planted():
    return tiny("llama", [Plant(WHERE)])


def known(where, status="causal"):
    return KnownSuperWeight(**where.model_dump(), status=status, source="a test")


def test_card_coordinates_are_measured_too(planted):
    elsewhere = Coordinate(layer=2, row=3, column=4)
    found = detect(planted.loaded, prompt=planted.prompt, text_ids=planted.text, known=[known(WHERE), known(elsewhere)])
    by_coordinate = {weight.coordinate: weight for weight in found.super_weights}
    assert (by_coordinate[WHERE].status, by_coordinate[WHERE].origin) == ("causal", "detection")
    assert (by_coordinate[elsewhere].status, by_coordinate[elsewhere].origin) == ("inert", "card")
    assert by_coordinate[elsewhere].effect == pytest.approx(1, abs=0.01)


def test_bits_are_those_of_the_stored_scalar(planted):
    (weight,) = detect(planted.loaded, prompt=planted.prompt, text_ids=planted.text).found
    assert weight.bits == f"0x{struct.unpack('<I', struct.pack('<f', planted.values[WHERE]))[0]:08x}"
    assert weight.dtype == "float32"


def test_effect_is_the_ratio_of_perplexities_of_plain_forward_passes(planted):
    found = detect(planted.loaded, prompt=planted.prompt, text_ids=planted.text)
    windows = torch.cat([torch.ones(4, 1, dtype=torch.long), planted.text[: 4 * 255].view(4, 255)], dim=1)

    def nll():
        with torch.no_grad():
            logits = planted.loaded.model(windows).logits[:, :-1].double()
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()))

    before = nll()
    with zeroed(planted.loaded, [WHERE]):
        after = nll()
    assert found.perplexity == pytest.approx(math.exp(before), rel=1e-5)
    assert math.log(found.found[0].effect) == pytest.approx(after - before, rel=1e-4)
    assert nll() == before


def test_conv1d_coordinates_are_output_then_input():
    """GPT-2 stores (input, output); the coordinate is [output, input] all the same."""
    where = Coordinate(layer=1, row=5, column=70)  # column 70 is beyond the 64 rows
    model = tiny("gpt2", [Plant(where)])
    found = detect(model.loaded, prompt=model.prompt, text_ids=model.text)
    assert [weight.coordinate for weight in found.found] == [where]
    assert float(model.loaded.model.transformer.h[1].mlp.c_proj.weight[70, 5]) == found.found[0].value


@pytest.mark.parametrize(("bos", "rows"), [("added", (True, False)), ("known", (True, False)), ("absent", (False,))])
def test_prompt_is_traced_with_and_without_bos(bos, rows):
    loaded = load(tiny_model("llama"), tiny_tokenizer(bos=bos))
    prompt = make_prompt(loaded, "w1 w2 w3", Thresholds())
    assert prompt.bos == rows
    assert prompt.ids.tolist() == ([[1, 5, 6]] if len(rows) == 2 else []) + [[5, 6, 7]]
    windows = make_windows(loaded, tiny_text(600), Thresholds())
    assert (windows[:, 0] == 1).all() == (bos == "added")
    assert windows.shape == (2, 256)


@pytest.mark.parametrize("bos", ["added", "known", "absent"])
def test_an_activation_that_only_bos_creates(bos):
    """Found where the tokenizer has a BOS, whether or not it adds it to texts; at position 0 of the row that has it."""
    model = tiny_model("llama")
    loaded = load(model, tiny_tokenizer(bos=bos))
    embeddings = model.get_input_embeddings().weight.data
    rest = embeddings[4:].mean(0)
    only = torch.randn(HIDDEN)
    only -= rest * (only @ rest) / rest.square().sum()
    embeddings[1] = rest + 4 * only
    mlp = model.model.layers[1].mlp
    mlp.gate_proj.weight[7] = mlp.up_proj.weight[7] = only / HIDDEN**0.5
    mlp.down_proj.weight[5, 7] = 50.0
    found = propose(loaded, make_prompt(loaded, "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10", Thresholds()), Thresholds())
    if bos == "absent":
        assert found.candidates == ()
    else:
        assert [candidate.coordinate for candidate in found.candidates] == [WHERE]
        assert found.candidates[0].entry.place == (0, 0)


def test_decomposition_is_that_of_the_down_projection(planted):
    """Feeds at a massive entry reproduce what the down projection wrote there, the router's weight included."""
    model = tiny("mixtral", [Plant(Coordinate(layer=1, expert=2, row=5, column=7))])
    prompt = make_prompt(model.loaded, model.prompt, Thresholds())
    seen = trace(model.loaded, prompt, Thresholds())
    entry = next(entry for entry in seen.entries if entry.layer == 1)
    feeds = seen.feeds[1, entry.place]
    assert len(feeds) == 2  # experts a token
    written = sum(feed.weight.matrix(feed.expert)[5].double() @ feed.inputs.double() for feed in feeds)
    assert float(written) == pytest.approx(entry.grown, rel=1e-3)  # attention adds a little


def test_the_choice_of_experts_implementation_is_restored():
    model = tiny("mixtral")
    config = model.loaded.model.config
    before = config._experts_implementation
    detect(model.loaded, prompt=model.prompt, text_ids=model.text)
    assert config._experts_implementation == before


def test_zeroing_is_undone_when_interrupted(planted):
    before = planted.loaded.architecture.scalar(WHERE).clone()

    def interrupted():
        with zeroed(planted.loaded, [WHERE, WHERE]):
            assert float(planted.loaded.architecture.scalar(WHERE)) == 0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(planted.loaded.architecture.scalar(WHERE).view(torch.int32), before.view(torch.int32))


def test_zeroing_restores_negative_zero_and_nan_payloads():
    loaded = load(tiny_model("llama"), tiny_tokenizer())
    scalar = loaded.architecture.scalar(WHERE)
    for pattern in (-(2**31), 0x7FC12345):  # −0.0, and a NaN with a payload
        scalar.view(torch.int32).fill_(pattern)
        with zeroed(loaded, [WHERE]):
            assert int(scalar.view(torch.int32)) == 0
        assert int(scalar.view(torch.int32)) == pattern


def test_null_weights_are_the_nearest_in_magnitude_and_not_suspect():
    loaded = load(tiny_model("llama"), tiny_tokenizer())
    matrix = loaded.architecture.down_projections[1].matrix()
    matrix.zero_()
    for row, column, value in ((5, 7, 4.0), (5, 8, 4.0), (6, 7, 4.0), (10, 11, -3.9), (12, 13, 4.3), (14, 15, 3.0)):
        matrix[row, column] = value
    suspects = Suspects(rows=frozenset({5}), columns=frozenset({(1, -1, 7)}))
    groups = null_groups(loaded, [WHERE], suspects, 2)
    assert [(g[0].row, g[0].column) for g in groups if g[0].layer == 1] == [(10, 11), (12, 13)]
    assert [g[0].layer for g in groups if g[0].layer != 1] == [2, 4]  # evenly over 0, 2, 3, 4, 5
    pairs = null_groups(loaded, [WHERE, Coordinate(layer=1, row=5, column=8)], suspects, 1)
    assert {(w.row, w.column) for w in pairs[0]} == {(10, 11), (12, 13)}


def test_interval_is_students_t_over_blocks(planted):
    """Against a by-hand computation for a known difference."""
    ablation = Ablation(
        planted.loaded, make_windows(planted.loaded, planted.text, Thresholds()), confidence=0.99, block=4
    )
    reference = torch.zeros(12, dtype=torch.float64)
    difference = torch.tensor([0.0] * 4 + [1.0] * 4 + [2.0] * 4, dtype=torch.float64)
    low, mean, high = ablation._compare(difference, reference)
    margin = 6.964557 / math.sqrt(3)  # t₂ at 99 % times the blocks' standard deviation 1, over √3
    assert (low, mean, high) == pytest.approx((1 - margin, 1, 1 + margin), rel=1e-6)


def test_peaks_of_every_layer(planted):
    found = detect(planted.loaded, prompt=planted.prompt, text_ids=planted.text)
    assert [peaks.layer for peaks in found.peaks] == list(range(6))
    assert all(peaks.residual.channel == 5 for peaks in found.peaks[1:])
    assert found.peaks[1].down_input.channel == 7
    value = found.peaks[1].down_input.value * planted.values[WHERE]
    assert found.peaks[1].down_output.value == pytest.approx(value, rel=1e-2)


def test_as_json_and_as_text(planted):
    found = detect(planted.loaded, prompt=planted.prompt, text_ids=planted.text)
    document = json.loads(json.dumps(found.as_dict()))
    weight = document["super_weights"][0]
    assert {"layer": 1, "expert": None, "row": 5, "column": 7, "status": "causal"}.items() <= weight.items()
    assert {"layer", "token", "channel", "value"} <= document["super_activations"][weight["activation"]].keys()
    text = as_table(found, title="a tiny model")
    assert text.startswith("a tiny model\nsuper weights: 1 causal, 0 spoke, 0 inert")
    assert "layer 1 [5, 7]" in text
    unplanted = tiny("llama")
    nothing = detect(unplanted.loaded, prompt=unplanted.prompt, text_ids=unplanted.text)
    assert "super weights: none" in as_table(nothing, title="")


def test_bad_input_is_refused(planted):
    loaded = planted.loaded
    with pytest.raises(InfraError, match=r"at least 128 tokens.*found 12"):
        detect(loaded, prompt=planted.prompt, text_ids=planted.text[:12])
    with pytest.raises(InfraError, match="at least one token"):
        detect(loaded, prompt="", text_ids=planted.text)
    outside = Coordinate(layer=1, row=HIDDEN, column=INNER - 1)
    with pytest.raises(InfraError, match=r"layer 1 \[64, 95\]"):
        detect(loaded, prompt=planted.prompt, text_ids=planted.text, known=[known(outside)])


def test_activations_that_are_not_finite():
    model = tiny_model("llama")
    model.model.layers[2].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(InfraError, match="after decoder layer 2") as error:
        detect(load(model, tiny_tokenizer()), prompt="w1 w2 w3", text_ids=tiny_text(200))
    assert error.value.reason == "non-finite"


def test_candidates_that_only_matter_all_together():
    """Two spikes in different rows and columns, each enough for the other: no column, no row, but both."""
    one, two = WHERE, Coordinate(layer=1, row=17, column=9)
    model = tiny("llama", [Plant(one), Plant(two)])
    inert = Coordinate(layer=3, row=1, column=1)
    settings = Thresholds(floor=2.0)  # what either alone does is below it
    found = detect(model.loaded, prompt=model.prompt, text_ids=model.text, known=[known(inert)], settings=settings)
    assert {weight.coordinate: (weight.status, weight.group) for weight in found.super_weights} == {
        one: ("spoke", "all"),
        two: ("spoke", "all"),
        inert: ("inert", None),
    }
