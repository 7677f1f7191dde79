"""Other people's quantisers as processes: what they write is kept whole, once, and their failures are told."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from superweight.cards import load_library, model_from_argument
from superweight.cards.methods.tools import TOOLS
from superweight.checkpoint import Cache, open_directory
from superweight.errors import InfraError
from superweight.measure.quantised import quantise, quantised_directory
from support.fake_tool import add_fake_tool, fake

HERE = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _fake_tool(monkeypatch):
    add_fake_tool(monkeypatch)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def source(tiny_checkpoint, cache):
    return open_directory(tiny_checkpoint[0], cache=cache, progress=False)


def left_behind(cache):
    """Names under `quantised/`, with keys cut to their ends."""
    folder = cache.path("quantised")
    return sorted(path.name.lstrip("0123456789abcdef") for path in folder.iterdir()) if folder.is_dir() else []


def test_what_a_tool_wrote_is_kept_with_its_log_and_its_record(source, cache):
    steps = []
    made = quantise(source, fake(), cache, progress=lambda *step: steps.append(step))
    assert (made / "model.safetensors").read_bytes() == b"half"
    assert (made / "tokenizer.json").read_bytes() == (source.directory / "tokenizer.json").read_bytes()
    seen = (made / "seen.txt").read_text()
    assert seen == f"{source.directory.name} cpu None False 1 ['do', 'ignore', 'note', 'reads']"
    assert steps == [(1, 2), (2, 2)]
    assert left_behind(cache) == ["", ".json", ".log"]
    assert b"talking\rover itself\nsuperweight-progress 2/2" in made.with_suffix(".log").read_bytes()
    record = json.loads(made.with_suffix(".json").read_text())
    assert record["tool"] == "fake"
    assert record["settings"]["do"] == "write"
    assert record["versions"] == {"pytest": pytest.__version__}
    assert record["files"]["model.safetensors"] == 4
    assert record["bytes"] == sum(path.stat().st_size for path in made.iterdir())


def test_it_is_made_once(source, cache, tmp_path):
    note = tmp_path / "note"
    first = quantise(source, fake(note=str(note)), cache)
    assert quantise(source, fake(note=str(note)), cache) == first
    assert len(note.read_text().splitlines()) == 1


@pytest.mark.parametrize("damage", ["cut", "gone", "more", "record"])
def test_what_somebody_has_touched_is_made_again(source, cache, tmp_path, damage):
    method = fake(note=str(tmp_path / "note"))
    made = quantise(source, method, cache)
    match damage:
        case "cut":
            (made / "model.safetensors").write_bytes(b"h")
        case "gone":
            (made / "model.safetensors").unlink()
        case "more":
            (made / "model-00002-of-00002.safetensors").write_bytes(b"of another run")
        case "record":
            made.with_suffix(".json").write_text("{")
    assert quantise(source, method, cache) == made
    assert (made / "model.safetensors").read_bytes() == b"half"
    assert len(list(made.glob("*.safetensors"))) == 1
    assert len((tmp_path / "note").read_text().splitlines()) == 2


def test_everything_that_it_depends_on_is_in_its_key(source, cache, tmp_path, monkeypatch):
    keys = [quantise(source, fake(), cache)]
    keys.append(quantise(source, fake(ignore=("lm_head",)), cache))
    keys.append(quantise(source, fake(corpus="x"), cache, windows=[[1, 2]]))
    keys.append(quantise(source, fake(corpus="x"), cache, windows=[[1, 3]]))
    keys.append(quantise(source, fake(), cache, device="cuda"))
    keys.append(quantise(replace(source, content_hash="0" * 64), fake(), cache))
    add_fake_tool(monkeypatch, packages=("pytest", "numpy"))
    keys.append(quantise(source, fake(), cache))
    (tmp_path / "elsewhere").mkdir()
    script = (HERE / "support" / "fake_quantiser.py").read_text() + "\n# another\n"
    (tmp_path / "elsewhere" / "fake_quantiser.py").write_text(script)
    monkeypatch.syspath_prepend(str(tmp_path))
    add_fake_tool(monkeypatch, script="elsewhere:fake_quantiser.py")
    keys.append(quantise(source, fake(), cache))
    assert len(set(keys)) == len(keys)


def test_another_tokenizer_is_another_result(tiny_checkpoint, cache, tmp_path):
    """The weights and config.json are the same, and the tokenizer stands beside the compressed weights."""
    import shutil

    copy = shutil.copytree(tiny_checkpoint[0], tmp_path / "copy")
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + "\n")
    one, other = (open_directory(path, cache=cache, progress=False) for path in (tiny_checkpoint[0], copy))
    assert one.content_hash == other.content_hash
    assert quantise(one, fake(), cache) != quantise(other, fake(), cache)


def test_calibration_text_comes_as_a_file(source, cache):
    made = quantise(source, fake(corpus="x"), cache, windows=[[1, 2], [3, 4]])
    assert "cpu [[1, 2], [3, 4]] False" in (made / "seen.txt").read_text()


def test_the_bars_of_a_tool_that_reports_nothing_are_progress(source, cache):
    steps = []
    quantise(source, fake("bars"), cache, progress=lambda *step: steps.append(step))
    assert steps == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("do", "reason", "words"),
    [
        ("crash", "crash", "tool 'fake': ValueError: the tool's own words. Its log: "),
        ("package", "missing-package", r"lacks not_installed_anywhere: pip install 'pytest-superweight\[test\]'"),
        ("unsupported", "unsupported", "tool 'fake': needs a GPU of compute capability 8.9. Its log"),
        ("memory", "crash", "MemoryError: cannot allocate 3 TB. .*more memory"),
        ("disk", "disk-full", "No space left on device"),
        ("die", "crash", "was killed, as by a machine that ran out of memory; it last said: .*about to die.*memory"),
        ("leave", "crash", "ended with exit code 7; it last said: "),
        ("nothing", "corrupt", "ended well and wrote no weights, but .*half|seen"),
    ],
)
def test_a_failure_is_told_and_leaves_nothing_but_the_log(source, cache, do, reason, words):
    with pytest.raises(InfraError, match=f"(?s){words}") as caught:
        quantise(source, fake(do), cache)
    assert caught.value.reason == reason
    assert left_behind(cache) == [".log"]
    log = next(cache.path("quantised").glob("*.log"))
    assert str(log) in str(caught.value)
    assert "superweight-progress 1/2" in log.read_text()


def test_a_tool_that_leaves_a_child_behind_is_done(source, cache):
    started = time.monotonic()
    quantise(source, fake("leave_a_child"), cache)
    assert time.monotonic() - started < 60


def test_a_package_that_is_not_there_is_told_before_anything_runs(source, cache, monkeypatch):
    add_fake_tool(monkeypatch, packages=("no-such-distribution",), extra="quantisers")
    words = r"'fake' needs the Python package no-such-distribution.*pip install 'pytest-superweight\[quantisers\]'"
    with pytest.raises(InfraError, match=words) as caught:
        quantise(source, fake(), cache)
    assert caught.value.reason == "missing-package"
    assert left_behind(cache) == []


def test_an_environment_that_is_not_made_says_how_to_make_it(source, cache, monkeypatch):
    add_fake_tool(monkeypatch, environment="gptq")
    with pytest.raises(InfraError, match=r"'fake' runs in the environment 'gptq'.*superweight env make gptq") as caught:
        quantise(source, fake(), cache)
    assert caught.value.reason == "missing-package"


def test_an_environment_is_a_python_of_its_own(source, cache, monkeypatch):
    """Its packages are in the key, and this Python's path is not in its way."""
    from superweight.checkpoint.fetching.environments import RECORD, environment_file

    file = environment_file("gptq")
    place = cache.path("environments", f"gptq-{file.digest[:16]}")
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(sys.executable)
    (place / RECORD).write_text(json.dumps({"name": "gptq", "python": "3.11.0", "packages": {"gptqmodel": "7.5.0"}}))
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    add_fake_tool(monkeypatch, environment="gptq")
    made = quantise(source, fake(), cache)
    record = json.loads(made.with_suffix(".json").read_text())
    assert record["versions"] == {"gptqmodel": "7.5.0", "python": "3.11.0"}


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pids, within=10.0):
    end = time.monotonic() + within
    while any(map(alive, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def pids_in(note, count, within=60.0):
    end = time.monotonic() + within
    while not note.exists() or len(note.read_text().splitlines()) < count:
        assert time.monotonic() < end
        time.sleep(0.05)
    return [int(line) for line in note.read_text().splitlines()]


def test_an_interrupt_ends_the_tool_and_its_children(source, cache, tmp_path):
    note = tmp_path / "note"

    def interrupt(done, planned):
        pids_in(note, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantise(source, fake("hang", note=str(note)), cache, progress=interrupt)
    assert gone(pids_in(note, 2))
    assert left_behind(cache) == [".log"]


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's parent may ignore it
from support.fake_tool import FAKE, fake
from superweight.cards.methods.tools import TOOLS
from superweight.checkpoint import Cache, open_directory
from superweight.measure.quantised import quantise
TOOLS["fake"] = FAKE
cache = Cache(sys.argv[1])
quantise(open_directory(sys.argv[2], cache=cache), fake(sys.argv[3], note=sys.argv[4]), cache)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_killed_takes_its_tool_along_and_can_be_repeated(source, cache, tmp_path, how):
    note = tmp_path / "note"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "plugins")])}
    command = [sys.executable, "-c", SCRIPT, str(cache.root), str(source.directory), "hang", str(note)]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as run:
        pids = pids_in(note, 2)
        run.send_signal(how)
        assert run.wait(timeout=30) != 0
    assert gone(pids)
    assert not list(cache.path("quantised").glob("[0-9a-f]*[0-9a-f]"))
    with pytest.raises(KeyboardInterrupt):  # leftovers are in nobody's way
        quantise(source, fake("hang", note=str(note)), cache, progress=interrupted)
    assert left_behind(cache) == [".log"]


def interrupted(done, planned):
    raise KeyboardInterrupt


def test_two_at_once_do_the_work_once(source, cache, tmp_path):
    method = fake("slow", note=str(tmp_path / "note"))
    made = []
    both = [threading.Thread(target=lambda: made.append(quantise(source, method, cache))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(made) == 2
    assert made[0] == made[1]
    assert len((tmp_path / "note").read_text().splitlines()) == 1


def test_a_reference_gives_the_text_and_is_told_the_steps(tiny_checkpoint, cache, tmp_path):
    from superweight.measure.reference import Reference
    from support.tiny_cards import write_data_cards

    write_data_cards(tmp_path / "cards")
    steps = []
    reference = Reference(
        model_from_argument(str(tiny_checkpoint[0])),
        load_library([tmp_path / "cards"]),
        cache,
        device="cpu",
        dtype=None,
        step=lambda *step: steps.append(step),
    )
    method = fake(corpus="chain").model_copy(update={"calibration_windows": 2, "calibration_window": 16})
    made = quantised_directory(reference, method)
    text = reference.tokens("chain")[-32:].view(2, 16).tolist()
    assert f"cpu {text} False" in (made / "seen.txt").read_text()
    assert steps == [("quantise:fake", 1, 2), ("quantise:fake", 2, 2)]


def test_whoever_watches_a_cell_is_told_the_steps(tiny_checkpoint, cache):
    from superweight.cards import Cell, RecipeCard
    from superweight.measure import CellMeasurer
    from superweight.measure.resident_runner import ResidentRunner
    from superweight.progress import Step

    library = load_library()
    model = model_from_argument(str(tiny_checkpoint[0]))
    cell = Cell(model, RecipeCard(id="theirs", title="T", role="reference", method=fake()))

    def open_runner(reference, opened):
        if opened.id == cell.id:
            quantised_directory(reference, opened.recipe.method)
        return ResidentRunner(reference, Cell(model, library.recipes["no-op"]))

    steps = []
    measurer = CellMeasurer(library, {}, device="cpu", cache=cache, watch=steps.append, open_runner=open_runner)
    measurer.sanity(cell)
    measurer.close()
    assert steps[-3:] == [
        Step(cell.id, "sanity"),
        Step(cell.id, "quantise:fake", 1, 2),
        Step(cell.id, "quantise:fake", 2, 2),
    ]


def test_every_shipped_tool_has_its_script():
    from importlib import resources

    for name, tool in TOOLS.items():
        package, file = tool.script.split(":")
        text = (resources.files(package) / file).read_text()
        assert "\ndef quantise(job" in text, name
