"""What is appended to a journal is read back, whole, in order and unaltered, whatever happens in between."""

import errno
import gc
import json
import math
import os
import random
import subprocess
import time
from datetime import UTC, datetime

import pytest
from child import KEY, WHAT, record, run, start
from hypothesis import given, settings
from hypothesis import strategies as st

from superweight.errors import InfraError
from superweight.evidence.journal import read_lines
from superweight.evidence.store import Store

SIGKILLED = -9


def path_of(root):
    return root / "journal" / KEY[:2] / f"{KEY}.jsonl"


def written(root, records):
    """A journal's file with these records."""
    with Store(root).journal(KEY, WHAT) as journal:
        for each in records:
            journal.append(each)
    return path_of(root)


def reopened(root):
    with Store(root).journal(KEY, WHAT) as journal:
        return journal.records


def crc32(data, register=0):
    """Bit by bit: reflected polynomial 0xEDB88320, register and result inverted (IEEE 802.3)."""
    register ^= 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


class TestWhatIsWritten:
    def test_lines(self, tmp_path):
        before = datetime.now(UTC).replace(microsecond=0)
        path = written(tmp_path, [{"batch": 0, "nll": [1.5, math.inf]}, {"batch": 1}])
        assert crc32(b"123456789") == 0xCBF43926  # the check value of this CRC
        header, first, second = path.read_text().splitlines()
        assert first.endswith('"record":{"batch":0,"nll":[1.5,Infinity]}}')
        checksum = 0
        for line in (header, first, second):
            payload = line.removesuffix("}").split('"record":', 1)[1]
            checksum = crc32(payload.encode(), checksum)
            assert line == f'{{"crc":"{checksum:08x}","record":{payload}}}'
        said = json.loads(header)["record"]
        assert (said["format"], said["key"], said["what"]) == (1, KEY, WHAT)
        assert before <= datetime.fromisoformat(said["created"]) <= datetime.now(UTC)

    def test_created_is_when_it_was_begun(self, tmp_path):
        path = written(tmp_path, [{}])
        said = json.loads(path.read_text().splitlines()[0])["record"]["created"]
        with Store(tmp_path).journal(KEY, {"another": "description"}) as journal:
            assert journal.created == said
            assert journal.note == ""

    def test_every_digit(self, tmp_path):
        values = [0.1, 1 / 3, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan, 2**70]
        records = [{"values": values, "text": "a\nb\u2028c\ud800\x00é", "none": None, "nested": [{"a": [True]}]}]
        written(tmp_path, records)
        assert repr(reopened(tmp_path)) == repr(records)

    def test_records_are_those_that_will_be_read(self, tmp_path):
        mine = {"pair": (1, 2), 3: "three"}
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            journal.append(mine)
            mine["pair"] = None
            assert journal.records == [{"pair": [1, 2], "3": "three"}]
        assert reopened(tmp_path) == [{"pair": [1, 2], "3": "three"}]

    def test_what_is_not_json_changes_nothing(self, tmp_path):
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            journal.append({"a": 1})
            with pytest.raises(TypeError):
                journal.append({"a": object()})
            journal.append({"a": 2})
        assert reopened(tmp_path) == [{"a": 1}, {"a": 2}]

    def test_a_very_long_record(self, tmp_path):
        long = {"text": "x" * 20_000_000}
        written(tmp_path, [long, {"a": 1}])
        assert reopened(tmp_path) == [long, {"a": 1}]

    def test_flushed_before_append_returns(self, tmp_path, monkeypatch):
        calls = []
        real_write, real_fsync = os.write, os.fsync
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            monkeypatch.setattr(os, "write", lambda *a: calls.append("write") or real_write(*a))
            monkeypatch.setattr(os, "fsync", lambda *a: calls.append("fsync") or real_fsync(*a))
            journal.append({})
            monkeypatch.undo()
        assert calls == ["write", "fsync"]

    def test_restart(self, tmp_path):
        path = written(tmp_path, [{"a": 1}, {"a": 2}])
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            journal.restart()
            assert journal.records == []
            assert path.read_bytes().count(b"\n") == 1
            journal.append({"a": 3})
        assert reopened(tmp_path) == [{"a": 3}]

    def test_closed(self, tmp_path):
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            pass
        journal.close()
        with pytest.raises(RuntimeError, match="closed"):
            journal.append({})
        with pytest.raises(RuntimeError, match="closed"):
            journal.restart()

    def test_ten_thousand_records_open_at_once(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "fsync", lambda _: None)
        written(tmp_path, [{"batch": n, "nll": [n / 7 + i for i in range(16)]} for n in range(10_000)])
        seconds = []
        for _ in range(3):
            begun = time.process_time()  # of this process alone, on a machine that may be busy
            assert len(reopened(tmp_path)) == 10_000
            seconds.append(time.process_time() - begun)
        assert min(seconds) < 0.3
        assert gc.isenabled()


RECORDS = [{"batch": n, "items": [{"doc_id": n, "value": n / 7, "name": "ä" * n}]} for n in range(6)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a journal with RECORDS."""
    return written(tmp_path_factory.mktemp("whole"), RECORDS).read_bytes()


def records_before(data, place):
    """How many whole records come before the line that has this byte."""
    return max(0, data[:place].count(b"\n") - 1)


class TestDamage:
    def test_every_truncation(self, whole):
        for cut in range(len(whole) + 1):
            found = read_lines(whole[:cut], KEY)
            assert found.records == RECORDS[: records_before(whole, cut)]
            assert found.damage == ""

    def test_every_byte(self, whole):
        flips = random.Random(0)
        for place in range(len(whole)):
            for flip in (1, 0x20, 0x80, flips.randrange(1, 256)):
                spoiled = bytearray(whole)
                spoiled[place] ^= flip
                assert read_lines(bytes(spoiled), KEY).records == RECORDS[: records_before(whole, place)]

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_opened_and_continued(self, tmp_path_factory, whole, data):
        """Cut anywhere, or with a byte changed anywhere: a beginning is found, and can be added to."""
        root = tmp_path_factory.mktemp("spoiled")
        place = data.draw(st.integers(0, len(whole) - 1))
        spoiled = bytearray(whole[:place] if data.draw(st.booleans()) else whole)
        if len(spoiled) == len(whole):
            spoiled[place] ^= data.draw(st.integers(1, 255))
        path_of(root).parent.mkdir(parents=True)
        path_of(root).write_bytes(spoiled)
        kept = RECORDS[: records_before(whole, place)]
        assert Store(root).peek(KEY) == kept
        with Store(root).journal(KEY, WHAT) as journal:
            assert journal.records == kept
            journal.append({"new": 1})
        with Store(root).journal(KEY, WHAT) as journal:
            assert journal.records == [*kept, {"new": 1}]
            assert journal.note == ""

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=300))
    def test_anything_at_all_is_no_journal(self, noise):
        assert read_lines(noise, KEY).records == []
        assert read_lines(noise + b"\n", KEY).records == []

    def test_a_line_removed_repeated_or_moved(self, whole):
        header, *lines = whole.splitlines(keepends=True)
        for spoiled in (lines[:2] + lines[3:], lines[:2] + lines[1:], [*lines[:2], lines[3], lines[2], *lines[4:]]):
            assert read_lines(header + b"".join(spoiled), KEY).records == RECORDS[:2]

    def test_a_torn_end_is_cut_off(self, tmp_path, whole):
        path = written(tmp_path, [])
        path.write_bytes(whole[:-5])
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            assert journal.records == RECORDS[:-1]
            assert journal.note == ""
            assert path.read_bytes() == whole[: whole[:-1].rindex(b"\n") + 1]
        assert [other.name for other in path.parent.iterdir()] == [path.name]

    def test_a_damaged_line_is_kept_aside(self, tmp_path, whole):
        path = written(tmp_path, [])
        for number in (1, 2):
            spoiled = whole.replace(b'"batch":3', b'"batch":7')
            path.write_bytes(spoiled)
            with Store(tmp_path).journal(KEY, WHAT) as journal:
                assert journal.records == RECORDS[:3]
                aside = path.with_name(f"{path.name}.damaged-{number}")
                assert journal.note == (
                    f"{path}: line 5 is damaged, and neither it nor what follows is used; the file as it was is kept "
                    f"as {aside.name}."
                )
            assert aside.read_bytes() == spoiled
            assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:4])

    def test_so_is_the_last_if_it_has_an_end(self, tmp_path, whole):
        """A crash leaves no line that ends; this one had been acknowledged, and may hide others."""
        path = written(tmp_path, [])
        *lines, last = whole.splitlines(keepends=True)
        merged = b"".join(lines)[:-1] + b" " + last
        path.write_bytes(merged)
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            assert journal.records == RECORDS[:-2]
            assert "line 6 is damaged" in journal.note
        assert path.with_name(f"{path.name}.damaged-1").read_bytes() == merged

    @pytest.mark.parametrize(
        ("spoil", "why"),
        [
            (lambda data: data.replace(b'"format":1', b'"format":7'), "the first line is damaged"),
            (lambda data: b"\x00" * 100 + data, "the first line is damaged"),
            (lambda data: b"name,value\na,1\n", "the first line is damaged"),
        ],
    )
    def test_a_damaged_header(self, tmp_path, whole, spoil, why):
        path = written(tmp_path, [])
        path.write_bytes(spoil(whole))
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            assert journal.records == []
            assert why in journal.note
            journal.append({"a": 1})
        assert path.with_name(f"{path.name}.damaged-1").read_bytes() == spoil(whole)
        assert reopened(tmp_path) == [{"a": 1}]

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"format": 2}, "of format 2, where this version of superweight reads and writes 1"),
            ({"key": "cd" * 32}, f"of another measurement, '{'cd' * 32}'"),
        ],
    )
    def test_another_header(self, tmp_path, whole, change, why):
        header = json.dumps({**json.loads(whole.splitlines()[0])["record"], **change}, separators=(",", ":"))
        path = written(tmp_path, [])
        path.write_text(f'{{"crc":"{crc32(header.encode()):08x}","record":{header}}}\n')
        assert Store(tmp_path).peek(KEY) == []
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            assert journal.records == []
            assert why in journal.note
        assert path.with_name(f"{path.name}.damaged-1").exists()


def short_write(code):
    """os.write that writes half, and finds no more room when asked for the rest."""
    real, calls = os.write, []

    def write(descriptor, data):
        calls.append(len(data))
        if len(calls) == 1:
            return real(descriptor, bytes(data)[: len(data) // 2])
        raise OSError(code, os.strerror(code))

    return write


def fail(code):
    def call(*_):
        raise OSError(code, os.strerror(code))

    return call


FULL = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]
OTHER = [errno.EROFS, errno.EACCES, errno.EIO]


class TestDisk:
    @pytest.mark.parametrize("code", FULL + OTHER)
    @pytest.mark.parametrize("fails", ["write", "fsync", "ftruncate"])
    def test_append(self, tmp_path, monkeypatch, code, fails):
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            journal.append({"a": 1})
            before = journal.path.read_bytes()
            monkeypatch.setattr(os, fails, short_write(code) if fails == "write" else fail(code))
            with pytest.raises(InfraError) as caught:
                journal.append({"a": 2, "text": "x" * 1000})
            monkeypatch.undo()
            assert caught.value.reason == ("disk-full" if code in FULL else "unsupported")
            assert str(journal.path) in str(caught.value)
            assert os.strerror(code) in str(caught.value)
            assert journal.path.read_bytes() == before
            assert Store(tmp_path).peek(KEY) == journal.records == [{"a": 1}]
            journal.append({"a": 3})
        assert reopened(tmp_path) == [{"a": 1}, {"a": 3}]

    def test_a_tail_that_could_not_be_cut_off_is_cut_off_later(self, tmp_path, monkeypatch):
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            journal.append({"a": 1})
            write, real, calls = short_write(errno.ENOSPC), os.ftruncate, []
            monkeypatch.setattr(os, "write", write)
            monkeypatch.setattr(
                os, "ftruncate", lambda *a: calls.append(a) or (real(*a) if len(calls) == 1 else fail(errno.EIO)())
            )
            with pytest.raises(InfraError):
                journal.append({"text": "x" * 1000})
            monkeypatch.undo()
            assert len(journal.path.read_bytes()) > 500
            assert Store(tmp_path).peek(KEY) == [{"a": 1}]
            journal.append({"a": 2})
        assert reopened(tmp_path) == [{"a": 1}, {"a": 2}]

    def test_interrupted(self, tmp_path, monkeypatch):
        def interrupt(_):
            raise KeyboardInterrupt

        with Store(tmp_path).journal(KEY, WHAT) as journal:
            journal.append({"a": 1})
            monkeypatch.setattr(os, "fsync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                journal.append({"a": 2})
            monkeypatch.undo()
            journal.append({"a": 3})
        assert reopened(tmp_path) == [{"a": 1}, {"a": 3}]

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
    def test_creation(self, tmp_path, monkeypatch, code):
        monkeypatch.setattr(os, "write", short_write(code))
        with pytest.raises(InfraError) as caught:
            Store(tmp_path).journal(KEY, WHAT)
        assert caught.value.reason == ("disk-full" if code == errno.ENOSPC else "unsupported")
        monkeypatch.undo()
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            assert (journal.records, journal.note) == ([], "")

    def test_restart(self, tmp_path, monkeypatch):
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            journal.append({"a": 1})
            monkeypatch.setattr(os, "write", short_write(errno.ENOSPC))
            with pytest.raises(InfraError, match="No space left"):
                journal.restart()
            monkeypatch.undo()
            assert journal.records == []
            journal.append({"a": 2})
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            assert (journal.records, journal.note) == ([{"a": 2}], "")

    def test_no_room_to_keep_a_damaged_file_aside(self, tmp_path, monkeypatch, whole):
        path = written(tmp_path, [])
        spoiled = whole.replace(b'"batch":3', b'"batch":7')
        path.write_bytes(spoiled)
        monkeypatch.setattr(os, "fsync", fail(errno.ENOSPC))
        with pytest.raises(InfraError, match="No space left"):
            Store(tmp_path).journal(KEY, WHAT)
        monkeypatch.undo()
        assert path.read_bytes() == spoiled
        assert reopened(tmp_path) == RECORDS[:3]

    def test_a_real_limit_on_file_sizes(self, tmp_path):
        script = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
with Store(root).journal(KEY, {}) as journal:
    try:
        while True:
            journal.append(record(len(journal.records)))
    except Exception as error:
        say(error.reason)
        say(len(journal.records))
"""
        status, said = run(script, tmp_path)
        assert status == 0
        assert said[0] == "disk-full"
        fit = int(said[1])
        assert (
            sum(n * 7919 % 5000 for n in range(fit)) < 20_000 < sum(n * 7919 % 5000 + 100 for n in range(fit + 1)) + 300
        )
        assert path_of(tmp_path).read_bytes().count(b"\n") == fit + 1
        assert reopened(tmp_path) == [record(n) for n in range(fit)]

    def test_a_real_full_disk(self, tmp_path):
        """A file system of 64 KiB in memory, in a mount namespace of its own."""
        within = ["unshare", "--user", "--map-root-user", "--mount"]
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
        try:
            subprocess.run([*within, *mount], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mount namespaces are not permitted here")
        script = (
            f"import subprocess\nsubprocess.run({mount!r}, check=True)"
            + """
with Store(root).journal(KEY, {}) as journal:
    try:
        while True:
            journal.append(record(len(journal.records)))
    except Exception as error:
        say(error.reason)
    kept = list(journal.records)
    assert Store(root).peek(KEY) == kept
    assert journal.path.read_bytes().count(bytes([10])) == len(kept) + 1
with Store(root).journal(KEY, {}) as journal:
    assert journal.records == kept and not journal.note
say(len(kept))
"""
        )
        status, said = run(script, tmp_path, within)
        assert status == 0
        assert said[0] == "disk-full"
        assert int(said[1]) > 10


APPEND_FIVE = """
with Store(root).journal(KEY, {}) as journal:
    for n in range(5):
        journal.append(record(n))
        say(n)
"""
# Calls that a process makes while it creates a journal and appends five records: the header's and five more, and four
# directories are flushed.
CALLS = {"write": 6, "ftruncate": 6, "fsync": 10}


class TestKilled:
    @pytest.mark.parametrize(
        ("call", "moment"),
        [(call, moment) for call in CALLS for moment in ("before", "after")] + [("write", "half")],
    )
    def test_while_appending(self, tmp_path, call, moment):
        for nth in range(1, CALLS[call] + 1):
            root = tmp_path / str(nth)
            status, said = run(f"die({call!r}, {nth}, {moment!r})\n{APPEND_FIVE}", root)
            assert status == SIGKILLED
            acknowledged = len(said)
            with Store(root).journal(KEY, WHAT) as journal:
                found = len(journal.records)
                assert acknowledged <= found <= acknowledged + 1
                assert journal.records == [record(n) for n in range(found)]
                assert journal.note == ""
                journal.append(record(found))
            assert reopened(root) == [record(n) for n in range(found + 1)]

    def test_at_any_time(self, tmp_path):
        """Killed again and again, each time at a random moment, the sequence grows and never breaks."""
        script = """
with Store(root).journal(KEY, {}) as journal:
    assert not journal.note
    say(len(journal.records))
    while True:
        journal.append(record(len(journal.records)))
        say(len(journal.records))
"""
        moments = random.Random(1)
        found = 0
        for _ in range(20):
            process = start(script, tmp_path)
            assert int(process.stdout.readline()) == found
            time.sleep(moments.uniform(0, 0.02))
            process.kill()
            said = process.stdout.read().split()  # communicate would lose what readline has read ahead
            process.communicate()
            acknowledged = int(said[-1]) if said else found
            records = Store(tmp_path).peek(KEY)
            found = len(records)
            assert acknowledged <= found <= acknowledged + 1
            assert records == [record(n) for n in range(found)]
        assert found > 20

    @pytest.mark.parametrize(
        ("call", "nth", "moment"),
        [("ftruncate", 1, "before"), ("ftruncate", 1, "after"), ("fsync", 1, "before"), ("fsync", 1, "after")],
    )
    def test_while_a_torn_end_is_cut_off(self, tmp_path, whole, call, nth, moment):
        path = written(tmp_path, [])
        path.write_bytes(whole[:-5])
        status, said = run(f"die({call!r}, {nth}, {moment!r})\nStore(root).journal(KEY, {{}})\nsay('opened')", tmp_path)
        assert (status, said) == (SIGKILLED, [])
        assert reopened(tmp_path) == RECORDS[:-1]

    @pytest.mark.parametrize(
        ("call", "nth", "moment"),
        [
            (call, nth, moment)
            for call, nths in {"fsync": range(1, 7), "replace": [1], "ftruncate": [1]}.items()
            for nth in nths
            for moment in ("before", "after")
        ],
    )
    def test_while_a_damaged_file_is_kept_aside(self, tmp_path, whole, call, nth, moment):
        path = written(tmp_path, [])
        spoiled = whole.replace(b'"batch":3', b'"batch":7')
        path.write_bytes(spoiled)
        status, said = run(f"die({call!r}, {nth}, {moment!r})\nStore(root).journal(KEY, {{}})\nsay('opened')", tmp_path)
        assert (status, said) == (SIGKILLED, [])
        assert reopened(tmp_path) == RECORDS[:3]
        assert path.with_name(f"{path.name}.damaged-1").read_bytes() == spoiled

    @pytest.mark.parametrize(
        ("call", "nth", "moment", "kept"),
        [
            ("ftruncate", 1, "before", RECORDS),
            ("ftruncate", 1, "after", []),
            ("write", 1, "half", []),
            ("write", 1, "after", []),
            ("fsync", 1, "after", []),
            ("write", 2, "half", []),
            ("write", 2, "after", [{"new": 1}]),
        ],
    )
    def test_while_restarting(self, tmp_path, call, nth, moment, kept):
        written(tmp_path, RECORDS)
        script = f"""
with Store(root).journal(KEY, {{}}) as journal:
    die({call!r}, {nth}, {moment!r})
    journal.restart()
    journal.append({{"new": 1}})
"""
        status, _ = run(script, tmp_path)
        assert status == SIGKILLED
        with Store(tmp_path).journal(KEY, WHAT) as journal:
            assert (journal.records, journal.note) == (kept, "")
