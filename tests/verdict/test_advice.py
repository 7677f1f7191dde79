"""What to try next, on cells made by hand: every sentence follows from the evidence."""

import math

import pytest

from superweight.cards import load_library
from superweight.evidence import CellEvidence, Perplexity, Sanity, Size, StoredWeight, ZeroShot
from superweight.verdict.explain.advice import advice, super_weight_state
from superweight.verdict.explain.next_settings import finer_settings, settings_that_keep_super_weights
from superweight.verdict.result import GateResult, Oddity


def weight(stored, original=5.875732421875, column=1229, **more):
    return StoredWeight(
        layer=11, expert=None, row=507, column=column, status="causal", origin="card", dtype="float32",
        original=original, original_bits="0x1", stored=stored, stored_bits="0x2", survived=stored == original, **more,
    )  # fmt: skip


TOO_GOOD = Oddity(kind="too-good", text="better by 3 %")
KEPT = weight(5.875732421875)
ZEROED = weight(0.0, column=90)
NEAR = weight(5.865838050842285)  # 0.17 % off


def sanity(hooks=(), changed=("w",)):
    return Sanity(declared=list(changed), changed=list(changed), undeclared=[], unchanged=[], hooks=list(hooks))


def text(value, windows=8):
    nll = [math.log(value)] * windows
    return Perplexity(
        value=value,
        protocol="p",
        corpus="wiki",
        origin="o",
        window=512,
        windows=windows,
        tokens=511,
        nll=nll,
        tokens_sha256="t",
    )


def task(value, n=200):
    return ZeroShot(task="piqa", metric="acc", n=n, data="made up", metrics={"acc": value})


def cell(recipe="rtn-int4-g64", role="candidate", **more):
    library = load_library()
    parameters = library.recipes[recipe].method.model_dump(mode="json") if recipe in library.recipes else {}
    values = {"recipe_parameters": parameters, "sanity": sanity(), "super_weights": [KEPT]} | more
    return CellEvidence(model="m", recipe=recipe, role=role, **values)


def gate(name="perplexity:wiki", verdict="REGRESSION", **more):
    return GateResult(gate=name, kind="measurement", verdict=verdict, message="", **more)


def said(*arguments, **more):
    return "\n".join(each.text for each in advice(*arguments, **more))


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ([], "no super weights known"),
        ([KEPT], "the one super weight kept"),
        ([KEPT, weight(2.0, 2.0, 3)], "all 2 super weights kept"),
        ([KEPT, ZEROED], "1 of 2 super weights lost: layer 11 [507, 90] 5.8757 → 0"),
        ([NEAR], "1 of 1 super weights lost: layer 11 [507, 1229] 5.8757 → 5.8658"),
        ([weight(1.0000001, 1.0)], "1 of 1 super weights lost: layer 11 [507, 1229] 1 → 1.0000001"),
        ([weight(math.nan, math.nan)], "1 of 1 super weights lost: layer 11 [507, 1229] 0x1 → 0x2"),
        ([weight(0.0, column=k) for k in range(6)], "6 of 6 super weights lost: "),
    ],
)
def test_super_weights_in_one_line(weights, line):
    state = super_weight_state(cell(super_weights=weights))
    assert state.startswith(line)
    assert len(weights) < 6 or state.endswith("layer 11 [507, 3] 5.8757 → 0 and 2 more")


def test_nothing_is_said_where_there_is_nothing_to_try():
    assert advice(cell(), gate(verdict="PASS")) == []
    assert advice(cell(), gate(verdict="INFRA")) == []
    assert advice(cell(), gate("sanity")) == []
    control = cell("prune-super-weights", "control", expects="REGRESSION", super_weights=[ZEROED])
    assert advice(control, gate(value=1e6, baseline=14.0)) == []


def test_lost_super_weights_name_what_restores_them():
    keeper = cell("clip-restore-int8-channel", perplexity={"wiki": text(14.7)})
    also = cell("w8a8-channel-token-handled", "reference")
    loses = cell("rtn-int8-channel", "reference", super_weights=[NEAR])
    untouched = [cell("baseline", "baseline"), cell("no-op", "control", expects="PASS")]
    found = said(loses, gate("super-weights"), run=[*untouched, keeper, loses, also])
    assert "kind = 'clip-restore' at the same bits and granularity" in found
    assert "0.17%" in found  # |5.865838 − 5.875732| / 5.875732 = 0.001684
    assert "in this run clip-restore-int8-channel and w8a8-channel-token-handled kept them all" in found
    (beside,) = [each for each in advice(loses, gate("super-weights"), run=[keeper, also]) if each.kind == "beside"]
    assert beside.recipes == ["clip-restore-int8-channel", "w8a8-channel-token-handled"]


def test_what_keeps_super_weights_by_kind():
    def of(recipe):
        return "\n".join(settings_that_keep_super_weights(cell(recipe).recipe_parameters))

    assert "keep_super_weights = true" in of("w8a8-channel-token-naive")
    assert "kind = 'w8a8'" in of("smoothquant-tensor-token")
    assert "stores super weights exactly" in of("clip-restore-int4-g64")
    assert "stores super weights exactly" in of("w8a8-channel-token-handled")
    assert of("prune-super-weights") == of("no-op") == of("scale-super-weights-x0.5") == ""


def test_an_exploded_perplexity_blames_lost_super_weights_first():
    found = advice(cell(super_weights=[KEPT, ZEROED]), gate(value=5000.0, baseline=10.0))
    assert "×500 with 1 of 2 super weights lost: layer 11 [507, 90] 5.8757 → 0" in found[0].text
    assert "arXiv:2411.07191" in found[0].text
    assert "clip-restore" in found[1].text
    assert [each.kind for each in found[:2]] == ["restore", "restore"]


def test_an_exploded_perplexity_with_super_weights_kept_is_something_else():
    exploded = gate(value=500.0, baseline=10.0)
    weight_only, both = cell(), cell("w8a8-tensor-tensor-naive", sanity=sanity(hooks=["m.0"]))
    assert "×50 with the one super weight kept, so the damage is elsewhere" in said(weight_only, exploded)
    assert "came out wrong" in said(weight_only, exploded)
    assert "activations are rounded too" in said(both, exploded)
    assert "elsewhere" in said(cell(super_weights=[NEAR]), exploded)  # 0.17 % off explains no factor of fifty
    assert "elsewhere" not in said(weight_only, gate(value=13.0, baseline=10.0))


def test_smaller_damage_blames_super_weights_that_are_far_off_too():
    assert "2 of 2 super weights lost" not in said(cell(), gate(value=13.0, baseline=10.0))
    zeroed = cell("rtn-int4-b65536", super_weights=[ZEROED, weight(0.0)])
    assert "2 of 2 super weights lost" in said(zeroed, gate(value=13.0, baseline=10.0))
    assert "2 of 2 super weights lost" in said(zeroed, gate("zero-shot:piqa", value=0.5, baseline=0.7))


def test_no_finite_likelihood():
    broken = gate(value=math.inf, baseline=10.0)
    assert "no finite likelihood" in said(cell(), broken)
    assert "float16" not in said(cell(), broken)
    assert "bfloat16" in said(cell(checkpoint={"compute_dtype": "float16"}), broken)


@pytest.mark.parametrize(
    ("recipe", "words", "not_words"),
    [
        ("rtn-int4-g64", ["group_size = 32", "bits = 8"], ["granularity ="]),
        ("rtn-int4-g128", ["group_size = 64", "bits = 8"], []),
        ("rtn-int4-b16384", ["16384 elements", "group_size = 128", "bits = 8"], []),
        ("rtn-int8-channel", ["seldom cost so much", "baseline"], ["bits = 8", "group"]),
        ("clip-restore-int4-g64", ["group_size = 32", "bits = 8"], ["z ="]),
        ("clip-restore-int4-b65536", ["group_size = 128", "z = 9 may clip too much"], ["'search'"]),
        ("w8a8-tensor-tensor-naive", ["activations = 'token'", "super_activations = 'handled'", "weights = 'channel'"], []),
        ("w8a8-tensor-token-attention-handled", ["weights = 'channel'", "attention_matmuls = false"], ["'token'"]),
        ("w8a8-channel-token-handled", ["kind = 'clip-restore' with bits = 8"], ["activations ="]),
        ("smoothquant-tensor-token", ["weights = 'channel'", "kind = 'w8a8'"], ["activations = 'token'"]),
        ("no-op", ["the harness or the machine"], []),
        ("prune-largest-others", [], ["try"]),
        ("baseline", [], ["try"]),
    ],
)  # fmt: skip
def test_what_a_recipe_leaves_to_try(recipe, words, not_words):
    found = "\n".join(finer_settings(cell(recipe).recipe_parameters))
    assert all(word in found for word in words)
    assert not any(word in found for word in not_words)


@pytest.mark.parametrize(
    ("parameters", "words", "not_words"),
    [
        ({"kind": "rtn", "bits": 4, "granularity": "channel"}, "one scale a row is coarse for 4 bits", "_size = 32"),
        ({"kind": "rtn", "bits": 4, "granularity": "tensor"}, "one scale for a whole matrix", "seldom"),
        ({"kind": "rtn", "bits": 8, "granularity": "tensor"}, "one scale for a whole matrix", "bits = 8"),
        ({"kind": "rtn", "bits": 4, "granularity": "group", "group_size": 32}, "bits = 8", "group_size"),
        ({"kind": "rtn", "bits": 3, "granularity": "group", "group_size": 48}, "group_size = 32", "seldom"),
        ({"kind": "rtn", "bits": 4, "granularity": "block", "block_size": 64}, "block_size = 32", "deployed"),
        ({"kind": "clip-restore", "bits": 4, "granularity": "group", "group_size": 32, "z": 9.0}, "z = 'search'", "block"),
        ({"kind": "clip-restore", "bits": 4, "granularity": "block", "block_size": 4096, "z": "search"}, "give z, 9 or more", "clip too much"),
        ({"kind": "clip-restore", "bits": 8, "granularity": "channel", "z": math.inf}, "seldom cost so much", "z ="),
        ({"kind": "melt"}, "", "try"),
        ({}, "", "try"),
    ],
)  # fmt: skip
def test_what_is_left_to_try_at_the_edges(parameters, words, not_words):
    found = "\n".join(finer_settings(parameters))
    assert words in found
    assert not_words not in found


def test_another_recipe_of_the_run_that_did_better_on_the_same_text():
    mine = cell(perplexity={"wiki": text(19.9)}, zero_shot={"piqa": task(0.6)})
    size = Size(compressed_bits_per_weight=8.05, model_bits_per_weight=13.1)
    better = cell(
        "clip-restore-int8-channel", perplexity={"wiki": text(14.69)}, zero_shot={"piqa": task(0.645)}, size=size
    )
    shorter = cell("rtn-int8-channel", perplexity={"wiki": text(14.0, windows=4)}, zero_shot={"piqa": task(0.7, n=50)})
    experiment = cell("scale-super-weights-x1.5", perplexity={"wiki": text(13.0)})
    other_model = better.model_copy(update={"model": "n", "perplexity": {"wiki": text(12.0)}})
    run = [mine, better, shorter, experiment, other_model]
    found = said(mine, gate(value=19.9, baseline=14.6), run=run)
    assert (
        "in this run clip-restore-int8-channel has perplexity 14.69 at 8.05 bits a weight, and this recipe perplexity 19.9"
        in found
    )
    assert "clip-restore-int8-channel has acc 0.6450" in said(mine, gate("zero-shot:piqa"), run=run)
    assert "in this run" not in said(better, gate(value=14.69, baseline=14.6), run=run)


SIZES = {"smoke": 200, "nightly": 250, "release": None}


@pytest.mark.parametrize(
    ("needed", "sizes", "words"),
    [
        (240, SIZES, "about 240 items would decide if the loss and the spread seen are the true ones, and 200 were measured: --superweight-tier nightly measures 250"),
        (251, SIZES, "--superweight-tier release measures all there are"),
        (9000, {"smoke": 200, "nightly": 250}, "raise limit in a tier card of your own"),
        (9000, {}, "raise limit"),
        (150, SIZES, "150 items decide this four times in five if the loss seen is the true one; 200 did not"),
        (None, SIZES, "no number of items within reach"),
    ],
)  # fmt: skip
def test_an_undecided_gate_says_what_would_decide(needed, sizes, words):
    undecided = gate("zero-shot:piqa", "INCONCLUSIVE", n=200, needed=needed)
    (found,) = advice(cell(), undecided, sizes=sizes)
    assert words in found.text
    assert (found.kind, found.n) == ("settle-margin" if needed is None else "measure-more", needed)
    assert found.tier == {240: "nightly", 251: "release"}.get(needed, "")


def test_an_undecided_text_is_counted_in_windows():
    found = said(cell(), gate(verdict="INCONCLUSIVE", n=8, needed=30))
    assert "30 windows" in found
    assert "raise windows" in found


def test_a_gate_that_was_not_pursued_needs_no_more_items():
    assert advice(cell(), gate("zero-shot:piqa", "INCONCLUSIVE", n=50, planned=200, needed=900)) == []
    assert advice(cell(), gate("zero-shot:piqa", "INCONCLUSIVE", n=200, planned=200, needed=900)) != []


def test_too_good_to_be_true():
    good = gate(verdict="PASS", oddities=[TOO_GOOD])
    baseline = cell("baseline", "baseline", checkpoint={"content_hash": "aa", "compute_dtype": "bfloat16"})
    assert "what they say" in said(cell(), good, run=[baseline])
    other = cell(checkpoint={"content_hash": "bb", "compute_dtype": "bfloat16"})
    assert "another checkpoint (aa, and here bb)" in said(other, good, run=[baseline])
    wide = cell(checkpoint={"content_hash": "aa", "compute_dtype": "float32"})
    assert "another arithmetic (bfloat16, and here float32)" in said(wide, good, run=[baseline])
    calibrated = gate("perplexity:web-embedded", "PASS", oddities=[TOO_GOOD])
    assert "calibrated on 'web-embedded'" in said(cell("smoothquant-tensor-token"), calibrated)
    assert "calibrated" not in said(cell("smoothquant-tensor-token"), good)
    assert "nothing was compressed" in said(cell("no-op", sanity=sanity(changed=())), good)


def test_a_model_that_is_as_good_and_another():
    gates = [gate(verdict="PASS"), gate("zero-shot:piqa", "PASS")]
    for name, words in (
        ("divergence:wiki", "distributions"),
        ("agreement:wiki", "tokens"),
        ("flips:piqa", "questions"),
    ):
        found = said(cell(), gate(name), gates=[*gates, gate(name)])
        assert "perplexity and accuracy hold" in found
        assert words in found
        assert "perplexity and accuracy hold" not in said(cell(), gate(name), gates=[gate(), gate(name)])
    assert "perplexity and accuracy hold" not in said(cell(), gate("flips:piqa"))


def test_detection_that_disagrees_with_the_card():
    assert "`superweight detect m`" in said(cell("baseline", "baseline"), gate("detection"))
