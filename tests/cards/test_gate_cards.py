"""Gate cards: kinds, provenance, scopes, and which of several holds."""

from datetime import date
from pathlib import Path

import pytest

from superweight.cards import GateBook, GateCard, load_library, read_card
from superweight.errors import CardError

WHY = "a reason long enough to be one"


def gate(identifier="g", kind="zero-shot", **more):
    return GateCard(id=identifier, title="G", kind=kind, margin=0.05, why=WHY, date="2026-01-31", **more)


def text(**keys):
    values = {
        "id": '"g"',
        "title": '"G"',
        "kind": '"zero-shot"',
        "margin": "0.05",
        "why": f'"{WHY}"',
        "date": '"2026-01-31"',
    }
    return "".join(f"{key} = {value}\n" for key, value in (values | keys).items())


def write(directory, text, name="g.toml"):
    path = directory / "gates" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_built_in_gates_hold_everywhere_and_do_not_expire():
    library = load_library()
    for kind in ("perplexity", "zero-shot"):
        card = library.book.gate(kind, "any-model", "any-recipe", "anything")
        assert (card.id, card.specificity, card.expires) == (kind, 0, None)
    for kind in ("divergence", "agreement", "flips"):
        assert library.book.gate(kind, "m", "r", "x") is None


def test_dates_may_be_quoted_or_tomls_own(tmp_path):
    for written in ('"2026-01-31"', "2026-01-31"):
        assert read_card(write(tmp_path, text(date=written)), GateCard).date == "2026-01-31"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"date": '"2026-02-30"'}, ["date", "no such day", "2026-02-30"]),
        ({"date": '"20260131"'}, ["date", "YYYY-MM-DD", "20260131"]),
        ({"date": '"2026-W05-6"'}, ["date", "YYYY-MM-DD"]),
        ({"date": "2026-01-31T12:00:00"}, ["date", "string"]),
        ({"expires": '"2026-01-30"'}, ["expires: 2026-01-30 is before date, 2026-01-31"]),
        ({"expires": '"soon"'}, ["expires", "YYYY-MM-DD", "soon"]),
        ({"kind": '"speed"'}, ["kind", "'divergence'", "'flips'", "speed"]),
        ({"margin": "0"}, ["margin", "greater than 0"]),
        ({"kind": '"flips"', "margin": "1.0"}, ["margin", "1.0 is not a share"]),
        ({"kind": '"agreement"', "margin": "2.0"}, ["margin", "not a share"]),
        ({"n": "1"}, ["n", "greater than or equal to 2"]),
        ({"models": "[]"}, ["models", "at least 1"]),
        ({"models": '"mistral"'}, ["models", "tuple"]),
        ({"versions": '{ torch = 2.9 }'}, ["versions.torch", "string"]),
        ({"value": "0.5"}, ["value", "needs n, device_class, models, of too"]),
        ({"value": "0.5", "n": "200", "models": '["a"]', "of": '["piqa"]'}, ["value", "needs device_class too"]),
        ({"kind": '"divergence"', "value": "0.5"}, ["value", "only kinds perplexity and zero-shot", "'divergence'"]),
        ({"limit": "3"}, ["limit", "allowed keys", "device_class"]),
    ],
)  # fmt: skip
def test_a_bad_gate_card_says_what_is_allowed(tmp_path, keys, words):
    with pytest.raises(CardError) as caught:
        read_card(write(tmp_path, text(**keys)), GateCard)
    for word in words:
        assert word in str(caught.value)


def test_a_bound_on_the_figure_itself_comes_with_what_it_was_measured_on(tmp_path):
    whole = text(
        value="0.63", n="200", device_class='"cpu x86_64 AVX512"', models='["smollm2-135m-instruct"]', of='["piqa"]'
    )
    card = read_card(write(tmp_path, whole), GateCard)
    assert (card.value, card.n, card.device_class, card.of) == (0.63, 200, "cpu x86_64 AVX512", ("piqa",))


def test_a_gate_is_valid_through_its_last_day():
    card = gate(expires="2026-06-30")
    assert card.valid_on(date(2026, 6, 30))
    assert not card.valid_on(date(2026, 7, 1))
    assert gate().valid_on(date(2999, 1, 1))


def test_the_narrower_card_holds():
    book = GateBook.of(
        [
            gate("everywhere"),
            gate("tasks", of=("piqa", "arc_*")),
            gate("model", models=("mistral-*",), of=("arc_easy",)),
            gate("cell", models=("mistral-7b",), recipes=("w8a8-*",), of=("arc_easy",)),
            gate("elsewhere", "perplexity", models=("mistral-7b",)),
        ]
    )

    def held(model, recipe, of):
        return book.gate("zero-shot", model, recipe, of).id

    assert held("llama", "rtn", "sciq") == "everywhere"
    assert held("llama", "rtn", "piqa") == "tasks"
    assert held("llama", "rtn", "arc_challenge") == "tasks"
    assert held("mistral-7b", "rtn", "arc_easy") == "model"
    assert held("mistral-7b", "w8a8-channel", "arc_easy") == "cell"
    assert held("mistral-7b", "w8a8-channel", "piqa") == "tasks"
    assert book.gate("perplexity", "llama", "rtn", "wiki") is None


def test_two_cards_that_claim_one_place_are_named():
    book = GateBook.of([gate("all"), gate("by-model", models=("mistral*",)), gate("by-task", of=("piqa",))])
    assert book.gate("zero-shot", "mistral-7b", "rtn", "sciq").id == "by-model"
    with pytest.raises(CardError, match=r"'by-model' and 'by-task'.*mistral-7b/rtn on 'piqa'.*neither is narrower"):
        book.gate("zero-shot", "mistral-7b", "rtn", "piqa")


def test_the_wildcard_spelled_differently_is_a_scope_of_its_own():
    """Only ["*"] itself is everything; a pattern that happens to match everything was written on purpose."""
    assert gate(models=["*"]).specificity == 0
    assert gate(models=["?*"]).specificity == 1


SCOPED = {"id": '"mine"', "models": '["smollm2-135m-instruct"]'}


def test_a_users_gate_joins_the_built_in_ones(tmp_path):
    write(tmp_path, text(**SCOPED, of='["piqa"]'))
    book = load_library([tmp_path]).book
    assert book.gate("zero-shot", "smollm2-135m-instruct", "no-op", "piqa").id == "mine"
    assert book.gate("zero-shot", "smollm2-135m-instruct", "no-op", "sciq").id == "zero-shot"
    assert book.gate("zero-shot", "llama-7b", "no-op", "piqa").id == "zero-shot"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([text(id='"other"')], ["exactly one card", "'zero-shot'", "'other'", "give yours its id"]),
        ([text(id='"zero-shot"', models='["llama-7b"]')], ["exactly one card", "kind = 'zero-shot'", "found none"]),
        ([text(id='"a"', kind='"flips"'), text(id='"b"', kind='"flips"')], ["at most one card", "'a', 'b'"]),
        ([text(**SCOPED), text(id='"b"', of='["piqa"]')], ["'mine' and 'b'", "smollm2-135m-instruct", "on 'piqa'"]),
        ([text(id='"b"', models='["mistral"]')], ["gate card 'b'", "models", "'mistral' is not a known id", "mistral-7b-v0.1"]),
        ([text(id='"b"', recipes='["rtn"]')], ["gate card 'b'", "recipes", "'rtn' is not a known id", "rtn-int4-g64"]),
        ([text(id='"b"', of='["wikitext2"]')], ["gate card 'b'", "of", "'wikitext2'", "arc_easy"]),
        ([text(id='"b"', of='["mmlu*"]')], ["of", "'mmlu*' matches no known id", "arc_easy"]),
        ([text(id='"b"', kind='"agreement"', of='["piqa"]')], ["of", "'piqa'", "wikitext2"]),
    ],
)  # fmt: skip
def test_gates_are_checked_against_each_other_and_against_the_library(tmp_path, files, words):
    for number, file in enumerate(files):
        write(tmp_path, file, f"{number}.toml")
    with pytest.raises(CardError) as caught:
        load_library([tmp_path])
    for word in words:
        assert word in str(caught.value)


def test_two_cards_of_one_width_that_never_meet_are_fine(tmp_path):
    write(tmp_path, text(**SCOPED), "a.toml")
    write(tmp_path, text(id='"b"', models='["llama-*"]'), "b.toml")
    write(tmp_path, text(id='"c"', models='["directories-without-a-card-*"]'), "c.toml")
    book = load_library([tmp_path]).book
    assert book.gate("zero-shot", "llama-7b", "no-op", "piqa").id == "b"
    assert book.gate("zero-shot", "directories-without-a-card-7", "no-op", "piqa").id == "c"


def test_a_tie_that_a_narrower_card_settles_is_none(tmp_path):
    write(tmp_path, text(**SCOPED), "a.toml")
    write(tmp_path, text(id='"b"', of='["piqa"]'), "b.toml")
    write(tmp_path, text(id='"c"', models='["smollm2-135m-instruct"]', of='["piqa"]'), "c.toml")
    assert load_library([tmp_path]).book.gate("zero-shot", "smollm2-135m-instruct", "no-op", "piqa").id == "c"


def test_the_example_of_an_optional_gate_in_the_documentation_works(tmp_path):
    """docs/cards.md, under "A gate": the block with kind = "divergence"."""
    docs = Path(__file__).parents[2] / "docs" / "cards.md"
    blocks = [block.split("```")[0] for block in docs.read_text(encoding="utf-8").split("```toml\n")[1:]]
    example = next(block for block in blocks if 'kind = "divergence"' in block)
    write(tmp_path, example)
    card = load_library([tmp_path]).book.gate("divergence", "llama-7b", "no-op", "wiki-embedded")
    assert card is not None
    assert card.ticket
    assert card.expires > card.date
