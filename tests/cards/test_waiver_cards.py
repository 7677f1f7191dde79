"""Waiver cards: what they must say, what they cover, and until when."""

from datetime import date

import pytest

from superweight.cards import GateBook, WaiverCard, load_library
from superweight.errors import CardError

WHY = "the kernel that breaks it is replaced next week"


def waiver(identifier="w", model="llama-7b", recipe="rtn-*", gate="zero-shot:piqa", expires="2026-12-31"):
    return WaiverCard(
        id=identifier,
        model=model,
        recipe=recipe,
        gate=gate,
        ticket="OPS-12",
        why=WHY,
        date="2026-12-01",
        expires=expires,
    )


def load(directory, **keys):
    values = {
        "id": '"w"', "model": '"llama-7b"', "recipe": '"rtn-int4-g64"', "gate": '"zero-shot:piqa"', "ticket": '"OPS-12"',
        "why": f'"{WHY}"', "date": '"2026-12-01"', "expires": '"2026-12-31"',
    }  # fmt: skip
    (directory / "waivers").mkdir()
    text = "".join(f"{key} = {value}\n" for key, value in (values | keys).items() if value is not None)
    (directory / "waivers" / "w.toml").write_text(text, encoding="utf-8")
    return load_library([directory])


def test_no_waiver_ships():
    assert load_library().waivers == {}


def test_a_users_waiver_covers_its_gate_until_its_last_day(tmp_path):
    book = load(tmp_path).book
    cell = ("llama-7b", "rtn-int4-g64", "zero-shot:piqa")
    assert book.waiver(*cell, date(2026, 12, 31)).ticket == "OPS-12"
    assert book.waiver(*cell, date(2027, 1, 1)) is None
    assert [card.id for card in book.expired(*cell, date(2027, 1, 1))] == ["w"]
    assert book.expired(*cell, date(2026, 12, 31)) == []
    assert book.waiver("llama-7b", "rtn-int4-g64", "zero-shot:sciq", date(2026, 12, 31)) is None
    assert book.waiver("llama-7b", "rtn-int4-g128", "zero-shot:piqa", date(2026, 12, 31)) is None


def test_wildcards_cover_what_they_match():
    book = GateBook.of([], [waiver(model="llama-*", recipe="*", gate="zero-shot:*")])
    day = date(2026, 12, 2)
    assert book.waiver("llama-13b", "no-op", "zero-shot:sciq", day) is not None
    assert book.waiver("mistral", "no-op", "zero-shot:sciq", day) is None
    assert book.waiver("llama-13b", "no-op", "super-weights", day) is None


def test_of_two_waivers_the_longer_one_holds():
    book = GateBook.of(
        [], [waiver("short", expires="2026-12-10"), waiver("long"), waiver("over", expires="2026-12-02")]
    )
    place = ("llama-7b", "rtn-int4", "zero-shot:piqa", date(2026, 12, 5))
    assert book.waiver(*place).id == "long"
    assert [card.id for card in book.expired(*place)] == ["over"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"ticket": None}, ["ticket", "required"]),
        ({"ticket": '" "'}, ["ticket", "pattern"]),
        ({"expires": None}, ["expires", "required"]),
        ({"expires": '"2026-11-31"'}, ["expires", "no such day"]),
        ({"expires": '"2026-11-30"'}, ["expires: 2026-11-30 is before date"]),
        ({"why": '"because"'}, ["why", "at least 20"]),
        ({"model": '"*"', "recipe": '"*"'}, ["every cell leaves no gate"]),
        ({"model": '"**"', "recipe": '"?*"'}, ["every cell leaves no gate"]),
        ({"model": '"llama"'}, ["waiver card 'w'", "model", "'llama' is not a known id", "llama-7b"]),
        ({"recipe": '"rtn"'}, ["waiver card 'w'", "recipe", "'rtn'", "rtn-int4-g64"]),
        ({"gate": '"zero-shot:pika"'}, ["waiver card 'w'", "gate", "'zero-shot:pika'", "zero-shot:piqa", "super-weights"]),
        ({"gate": '"zeroshot:*"'}, ["gate", "'zeroshot:*' matches no known id"]),
        ({"gate": '"perplexity"'}, ["gate", "'perplexity' is not a known id", "perplexity:wikitext2"]),
        ({"reason": '"x"'}, ["reason", "allowed keys", "ticket"]),
    ],
)  # fmt: skip
def test_a_bad_waiver_says_what_is_allowed(tmp_path, keys, words):
    with pytest.raises(CardError) as caught:
        load(tmp_path, **keys)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "gate", ["super-weights", "detection", "sanity", "perplexity:wiki-embedded", "flips:piqa", "*"]
)
def test_gates_that_can_be_waived(tmp_path, gate):
    assert load(tmp_path, gate=f'"{gate}"').waivers["w"].gate == gate
