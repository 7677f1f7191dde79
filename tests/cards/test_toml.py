"""What TOML allows and nobody means by a card."""

import os

import pytest

from superweight.cards import GateCard, ModelCard, RecipeCard, TierCard, read_card
from superweight.errors import CardError

GATE = """
id = "g"
title = "{title}"
kind = "zero-shot"
margin = {margin}
why = "Because it is what the items can tell."
date = "2026-01-31"
{more}
"""


def gate(tmp_path, *, title="T", margin="0.5", more=""):
    path = tmp_path / "g.toml"
    path.write_text(GATE.format(title=title, margin=margin, more=more), encoding="utf-8")
    return read_card(path, GateCard)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"margin": "inf"}, ["margin", "finite", "inf"]),
        ({"margin": "1e999"}, ["margin", "finite"]),
        ({"margin": "nan"}, ["margin", "nan"]),
        ({"margin": "true"}, ["margin", "True"]),
        ({"more": "n = 9223372036854775807"}, ["n: expected at most 2147483647", "9.223e+18"]),
        ({"more": f"n = 1{'0' * 400}"}, ["n: expected at most 2147483647"]),
        ({"more": f"n = {'9' * 5000}"}, ["not valid TOML", "digits"]),
        ({"more": f"n = {'[' * 5000}"}, ["not valid TOML", "inside one another"]),
        ({"more": "margin = 0.1"}, ["not valid TOML", "overwrite"]),
        ({"title": "a\\u202eb"}, ["title", "U+202E RIGHT-TO-LEFT OVERRIDE"]),
        ({"title": "a\u202eb"}, ["title", "U+202E RIGHT-TO-LEFT OVERRIDE"]),
        ({"title": "a\\u001b[31m"}, ["title", "U+001B"]),
        ({"title": "a\\nb"}, ["title", "expected one line"]),
        ({"more": '"\\u001b" = 1'}, ["the key holds U+001B"]),
        ({"more": f'ticket = {"7" * 9}\nx = "{"a" * 5000}"'}, ["ticket", "allowed keys"]),
    ],
)
def test_what_nobody_means_is_told_with_file_and_key(tmp_path, changed, words):
    with pytest.raises(CardError) as caught:
        gate(tmp_path, **changed)
    text = str(caught.value)
    assert "g.toml" in text
    assert all(word in text for word in words), text
    assert len(text) < 1500
    assert text.replace("\n", "").isprintable()


def test_a_mark_of_byte_order_and_several_lines_of_reasons_are_fine(tmp_path):
    text = (
        GATE.format(title="T", margin="0.5", more="")
        .replace('"Because it', '"""Because\nit')
        .replace('tell."', 'tell."""')
    )
    (tmp_path / "g.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_card(tmp_path / "g.toml", GateCard).why == "Because\nit is what the items can tell."


def test_a_threshold_without_end_is_the_one_number_that_may_be_infinite(tmp_path):
    method = 'kind = "clip-restore"\nbits = 4\ngranularity = "tensor"\nz = inf'
    (tmp_path / "r.toml").write_text(f'id = "r"\ntitle = "R"\nrole = "candidate"\n[method]\n{method}\n')
    assert read_card(tmp_path / "r.toml", RecipeCard).method.z == float("inf")
    scaled = 'kind = "scale-super-weights"\nfactor = inf'
    (tmp_path / "r.toml").write_text(f'id = "r"\ntitle = "R"\nrole = "candidate"\n[method]\n{scaled}\n')
    with pytest.raises(CardError, match="factor"):
        read_card(tmp_path / "r.toml", RecipeCard)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.toml")
    with pytest.raises(CardError, match=r"m\.toml: cannot be read \(is a pipe"):
        read_card(tmp_path / "m.toml", ModelCard)


def test_the_path_of_a_checkpoint_may_be_a_link_to_itself(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "m.toml").write_text('id = "m"\ntitle = "M"\n[source]\nkind = "directory"\npath = "loop"\n')
    assert read_card(tmp_path / "m.toml", ModelCard).source.path == str(tmp_path / "loop")


@pytest.mark.parametrize("key", ["models", "recipes"])
def test_a_tier_of_nothing_is_refused(tmp_path, key):
    lists = {"models": '["*"]', "recipes": '["*"]', key: "[]"}
    listed = "\n".join(f"{name} = {value}" for name, value in lists.items())
    (tmp_path / "t.toml").write_text(
        f'id = "smoke"\ntitle = "T"\n{listed}\nperplexity = [{{corpus = "c", window = 64}}]\ntasks = []\n'
    )
    with pytest.raises(CardError, match=f"{key}: .*at least 1 item"):
        read_card(tmp_path / "t.toml", TierCard)
