"""Evidence, tables, baselines and stores that something happened to: told in a line, and never a PASS by mistake."""

import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from contextlib import chdir, contextmanager, suppress
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.damage import budget, byte_damage, json_damage, tree_damage
from fuzz.outcome import before_long
from superweight.cli import main
from superweight.report import write_run
from superweight.runs.history import append_run
from superweight.runs.read import snapshots_of
from superweight.runs.release_baselines import promote
from support.by_hand import BASE, baseline, cell, document, weight

WORSE = [nll + 2.0 for nll in BASE]
SCORES = [1.0] * 60
EVIDENCE, TABLES = "b/evidence.json", ("b/items/m/rtn/piqa.csv", "b/items/m/baseline/piqa.csv")
SNAPSHOT, HISTORY = "baselines/smoke/m.json", "store/history.jsonl"
KEPT = "store/runs/20260131T010000Z-11111111/m.json"
WRITTEN = re.compile(
    r"[ab]/(report\.html|summary\.md|badge\.json|figures\.csv|compare\.(md|json))|out\.csv|store/(index\.html|.*\.lock)"
    r"|baselines/.*"
)
COMMANDS = {
    "report": ["report", "b", "--store", "store"],
    "export": ["export", "b", "-o", "out.csv"],
    "compare": ["compare", "a", "b"],
    "release": ["compare", SNAPSHOT, "b"],
    "back": ["compare", "b", "a"],
    "baseline": ["baseline", "b", "--baselines", "baselines"],
    "index": ["index", "store"],
}
DAMAGED = {
    "index": (HISTORY, KEPT),
    "release": (SNAPSHOT, EVIDENCE, *TABLES),
    "baseline": (SNAPSHOT, EVIDENCE, *TABLES),
}
DAMAGED |= {"report": (HISTORY, EVIDENCE, *TABLES)}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def cells():
    control = cell("prune", "control", nll=WORSE, promises=False)
    compressed = cell("rtn", nll=BASE, scores=SCORES, super_weights=[weight()])
    return baseline(scores=SCORES), compressed, control


def run(**more):
    value = math.exp(math.fsum(BASE) / len(BASE))
    return document(*cells(), failed=["prune"], figures={"rtn": (value, value), "baseline": (value, value)}, **more)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """Two runs that pass, the later of them a release baseline, and a store that knows both."""
    root = tmp_path_factory.mktemp("pristine")
    for number, name in enumerate(("a", "b")):
        one = run(started=f"2026-01-3{number}T01:00:00+00:00")
        assert one.verdict == "PASS", one.reasons
        write_run(root / name, one, cells())
        snapshots = snapshots_of(one, cells())
        with patch("superweight.runs.history.uuid.uuid4") as unique:
            unique.return_value.hex = str(number) * 8
            append_run(root / "store", one, snapshots, {"m": snapshots[0].taken})
        promote(root / "baselines", snapshots[0], when="2026-02-01T00:00:00+00:00")
    return root


@pytest.fixture(autouse=True)
def _no_flushing(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power is cut here, and flushing is slow


def tree(root):
    """Every name below a directory, and what it is."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        what = path.read_bytes() if stat.S_ISREG(mode) else str(path.readlink()) if stat.S_ISLNK(mode) else ""
        found[path.relative_to(root).as_posix()] = (stat.S_IFMT(mode), what)
    return found


class Html(HTMLParser):
    """What a page holds; every element is closed in order."""

    VOID = ("meta", "link", "br", "input", "img", "path", "rect", "circle", "line", "use", "image")

    def __init__(self, text):
        super().__init__()
        self.open, self.scripts, self.heads, self.at, self.handlers = [], 0, [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self.heads += [""] if tag == "h1" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        while (
            self.open and self.open[-1] != tag and self.open[-1] in ("li", "p", "td", "tr", "th", "dd", "dt", "option")
        ):
            self.open.pop()  # elements that HTML lets stay open
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if self.open and self.open[-1] == "h1":
            self.heads[-1] += data


def plain(raw):
    """A document without what tells whether it was altered."""
    return {name: value for name, value in raw.items() if name != "digest"}


def seal(raw):
    """As a run writes it: sha256 over canonical JSON."""
    text = json.dumps(plain(raw), sort_keys=True, separators=(",", ":"))
    return plain(raw) | {"digest": hashlib.sha256(text.encode()).hexdigest()}


def loaded(path):
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


def same(root, pristine, name):
    """Whether a file says what it said, however it is laid out."""
    ours, theirs = loaded(root / name), loaded(pristine / name)
    return isinstance(ours, dict) and json.dumps(plain(ours), sort_keys=True) == json.dumps(
        plain(theirs), sort_keys=True
    )


def supported(raw):
    """Whether a document that nobody vouches for supports its own PASS."""
    if raw["verdict"] != "PASS" or not raw["cells"]:
        return False
    for one in raw["cells"]:
        gates = one.get("gates") or []
        bad = [gate for gate in gates if gate["verdict"] != "PASS" and not gate.get("waiver")]
        figures = [gate.get(name) for gate in gates if gate["verdict"] == "PASS" for name in ("value", "difference")]
        if any(str(figure).lower() in ("nan", "inf", "-inf", "infinity") for figure in figures):
            return False
        if one["role"] in ("baseline", "candidate") and (bad or not gates or one["verdict"] != "PASS"):
            return False
        if one["role"] == "control" and one["verdict"] != one.get("expects") and gates:
            return False
    return True


@st.composite
def told_otherwise(draw):
    """Strings that a run itself wrote: markup, control characters, and what turns the direction of writing."""
    pick = draw(st.integers(0, 10**6))
    text = draw(
        st.sampled_from(
            ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style></div>", "{{7*7}}", "\x00\x1b[31m",
             "\u202egnp.exe", "\ufdd0\ufffe", "](javascript:alert(1))", "'\"`&amp;", "x" * 3000, "a\u2028b", "<!--",
             "]]>", "\x85\x9b", "\r\n\r\n# ✓ PASS")
        )
    )  # fmt: skip

    def change(raw):
        places = list(_strings(raw))
        parent, key = places[pick % len(places)]
        parent[key] = text

    return change


def _strings(node):
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        if isinstance(value, str):
            yield node, key
        elif isinstance(value, dict | list):
            yield from _strings(value)


def damages(names):
    one = st.one_of(byte_damage(names), tree_damage(names), json_damage([n for n in names if n.endswith(".json")]))
    return st.lists(one, min_size=1, max_size=2)


@st.composite
def cases(draw, commands):
    command = draw(st.sampled_from(commands))
    names = DAMAGED.get(command, (EVIDENCE, *TABLES))
    return command, draw(damages(names)), draw(st.sampled_from(("as it is", "as it is", "sealed again", "unsealed")))


def reseal(root, how):
    raw = loaded(root / EVIDENCE)
    if how != "as it is" and isinstance(raw, dict):
        text = json.dumps(seal(raw) if how == "sealed again" else plain(raw))
        (root / EVIDENCE).write_text(text, encoding="utf-8", errors="surrogatepass")


def called(root, command, capsys):
    before = tree(root)
    capsys.readouterr()
    with chdir(root), before_long():
        code = main(COMMANDS[command])
    out, err = capsys.readouterr()
    after = tree(root)
    assert code in (0, 1, 2)
    assert "--traceback" not in err, err
    assert not CONTROL.search(err + out), err + out
    lines = err.splitlines()
    assert all(line.startswith("superweight: ") for line in lines), err
    if code == 2 and command not in ("compare", "release", "back"):
        assert len(lines) == 1, err
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert all(WRITTEN.fullmatch(name) for name in changed), changed
    assert not [name for name in after if Path(name).name.startswith(".") and name not in before], after.keys()
    return code, out, err


def check_page(path):
    text = path.read_text(encoding="utf-8")
    page = Html(text)
    assert page.open == []
    assert page.scripts <= 1
    assert page.handlers == []
    assert not CONTROL.search(text)
    return page


@contextmanager
def copied(pristine):
    root = Path(tempfile.mkdtemp())
    shutil.copytree(pristine, root / "x")
    try:
        yield root / "x"
    finally:
        shutil.rmtree(root, ignore_errors=True)


def check(pristine, case, capsys):
    command, changes, how = case
    with copied(pristine) as root:
        for damage in changes:
            if any(path.is_fifo() for path in root.rglob("*")):
                break  # the next damage would wait for it
            with suppress(
                OSError, ValueError, TypeError, RecursionError, AttributeError
            ):  # the one before left nothing to damage
                damage(root)
        reseal(root, how)
        known = (how != "sealed again" or same(root, pristine, EVIDENCE)) and (root / EVIDENCE).is_file()
        code, out, err = called(root, command, capsys)
        if code == 2 and err:
            assert any(
                Path(name).name in err or Path(name).parent.name in err for name in DAMAGED.get(command, (EVIDENCE,))
            )
        if command == "report" and code == 0:
            (head,) = check_page(root / "b" / "report.html").heads
            assert_supported(head.startswith("✓"), root, pristine, known)
            assert ("✓" in (root / "b" / "summary.md").read_text().splitlines()[0]) == head.startswith("✓")
            assert ("may ship" in (root / "b" / "badge.json").read_text()) == head.startswith("✓ PASS: may ship")
        if command in ("compare", "release", "back") and out.startswith("✓"):
            assert code == 0
            assert_supported(True, root, pristine, known)
            assert all(
                (root / name).is_file() and (root / name).read_bytes() == (pristine / name).read_bytes()
                for name in TABLES
            )
            raw = loaded(root / SNAPSHOT)
            if command == "release" and raw and raw.get("digest"):
                assert same(root, pristine, SNAPSHOT)
        if command == "baseline" and code == 0:
            assert_supported(True, root, pristine, known)
        if command == "index" and code == 0:
            check_page(root / "store" / "index.html")


def assert_supported(green, root, pristine, known):
    """A PASS that is shown is that of the run, or at least that of its own parts; none needs to be shown."""
    if green and known and not same(root, pristine, EVIDENCE):
        raw = loaded(root / EVIDENCE)
        assert not raw.get("digest"), "an altered document passes"
        assert supported(raw), "a PASS that its parts do not support"


BIG = pytest.mark.slow


def sizes(small, big):
    return pytest.mark.parametrize("examples", [small, pytest.param(big, marks=BIG)])


@sizes(60, 3000)
def test_damaged_evidence_is_told_and_never_passes(pristine, capsys, examples):
    @budget(examples)
    @given(cases(("export", "compare", "release", "back", "baseline")))
    def fuzz(case):
        check(pristine, case, capsys)

    fuzz()


@sizes(20, 1500)
def test_pages_of_damaged_runs_and_stores(pristine, capsys, monkeypatch, examples):
    monkeypatch.setattr("superweight.report.pictures.drawing.drawable", lambda: "left out here")

    @budget(examples)
    @given(cases(("report", "report", "index")))
    def fuzz(case):
        check(pristine, case, capsys)

    fuzz()


@sizes(10, 500)
def test_pages_are_whole_whatever_strings_a_run_wrote(pristine, capsys, monkeypatch, examples):
    monkeypatch.setattr("superweight.report.pictures.drawing.drawable", lambda: "left out here")

    @budget(examples)
    @given(st.lists(told_otherwise(), min_size=1, max_size=40))
    def fuzz(changes):
        with copied(pristine) as root:
            raw = loaded(root / EVIDENCE)
            for change in changes:
                change(raw)
            (root / EVIDENCE).write_text(json.dumps(seal(raw)))
            code, _, _ = called(root, "report", capsys)
            if code == 0:
                check_page(root / "b" / "report.html")

    fuzz()
