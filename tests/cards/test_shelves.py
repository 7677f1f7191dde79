"""No card is passed over in silence because of its name or place."""

import pytest

from superweight.cards import load_library
from superweight.errors import CardError

CORPUS = 'id = "mine"\ntitle = "Mine"\n[source]\nkind = "file"\npath = "mine.txt"\n'


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(CORPUS)
    return root


@pytest.mark.parametrize("name", ["mine.toml", "mine.TOML", ".mine.toml"])
def test_the_case_of_a_suffix_does_not_matter(tmp_path, name):
    assert "mine" in load_library([put(tmp_path, f"corpora/{name}")]).corpora


@pytest.mark.parametrize("name", ["mine.toml.bak", "mine.txt", "mine.toml~"])
def test_what_is_no_card_is_left_alone(tmp_path, name):
    assert "mine" not in load_library([put(tmp_path, f"corpora/{name}")]).corpora


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("corpora/mine.toml.txt", r"mine\.toml\.txt: is not read as a card; expected a name that ends in '\.toml'"),
        ("corpora/more/mine.toml", r"corpora/more: cards in it are not read; move them into .*corpora"),
        ("corpora/mine.toml\u202e", r"mine\.toml\\u202e: its name holds U\+202E"),
        ("Corpora/mine.toml", r"Corpora: cards in it are not read; expected a folder called 'corpora'"),
        ("gate/mine.toml", r"gate: cards in it are not read; expected a folder called 'gates'"),
        ("mine.toml", r"holds no cards .*Expected one of the folders models, recipes"),
    ],
)
def test_cards_where_nobody_looks_for_them_are_told_of(tmp_path, name, told):
    with pytest.raises(CardError, match=told):
        load_library([put(tmp_path, name, *(["models/.keep"] if name.startswith(("Corpora", "gate")) else []))])


def test_a_folder_that_cannot_be_listed_is_told_of(tmp_path):
    put(tmp_path, "corpora/mine.toml")
    (tmp_path / "gates").symlink_to("gates")
    (tmp_path / "tiers").write_text("no folder")
    for name in ("gates", "tiers"):
        with pytest.raises(CardError, match=f"{name}: cannot be read"):
            load_library([tmp_path])
        (tmp_path / name).unlink()
    assert "mine" in load_library([tmp_path]).corpora
