"""One directory, several processes: each journal has one writer at a time, readers never wait, nothing gets mixed up."""

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from child import KEY, WHAT, record, run, start

from superweight.errors import InfraError
from superweight.evidence import store as module
from superweight.evidence.store import Store

OTHER = "cd" * 32


def no_waiting(message):
    raise AssertionError(message)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, waiting=no_waiting)


HOLD = """
journal = Store(root).journal(KEY, {})
journal.append(record(0))
say("open")
sys.stdin.readline()
journal.append(record(1))
journal.close()
say("closed")
sys.stdin.readline()
"""


class TestFiles:
    def test_where_they_are(self, store, tmp_path):
        with store.journal(KEY, WHAT) as journal:
            assert journal.path == tmp_path / "journal" / "ab" / f"{KEY}.jsonl"
        with store.journal(OTHER, WHAT) as journal:
            assert journal.path == tmp_path / "journal" / "cd" / f"{OTHER}.jsonl"
        assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {f"{KEY}.jsonl", f"{OTHER}.jsonl"}

    @pytest.mark.parametrize(
        "key",
        ["", "abc", "AB" * 32, "../../../etc/passwd", "abcd/ef", "abcd\n", "abcd.", "ab\x00cd", "ab" * 65, "xyzw"],
    )
    def test_what_is_no_key(self, store, tmp_path, key):
        with pytest.raises(ValueError, match="content key"):
            store.journal(key, WHAT)
        with pytest.raises(ValueError, match="content key"):
            store.peek(key)
        assert list(tmp_path.iterdir()) == []

    def test_a_root_that_is_a_file(self, tmp_path):
        (tmp_path / "file").write_text("")
        for root in (tmp_path / "file", tmp_path / "file" / "below"):
            for use in (lambda store: store.journal(KEY, WHAT), lambda store: store.peek(KEY)):
                with pytest.raises(InfraError, match="Not a directory") as caught:
                    use(Store(root))
                assert caught.value.reason == "unsupported"
                assert str(root) in str(caught.value)

    def test_a_journal_that_is_a_directory(self, store, tmp_path):
        (tmp_path / "journal" / "ab" / f"{KEY}.jsonl").mkdir(parents=True)
        with pytest.raises(InfraError, match="Is a directory"):
            store.journal(KEY, WHAT)
        with pytest.raises(InfraError, match="Is a directory"):
            store.peek(KEY)

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            (errno.ENOSPC, "disk-full"),
            (errno.EDQUOT, "disk-full"),
            (errno.EROFS, "unsupported"),
            (errno.EACCES, "unsupported"),
        ],
    )
    @pytest.mark.parametrize("fails", ["open", "mkdir"])
    def test_what_cannot_be_created(self, store, monkeypatch, fails, code, reason):
        def fail(path, *_):
            raise OSError(code, os.strerror(code), path)

        monkeypatch.setattr(os, fails, fail)
        with pytest.raises(InfraError) as caught:
            store.journal(KEY, WHAT)
        monkeypatch.undo()
        assert caught.value.reason == reason
        assert os.strerror(code) in str(caught.value)
        store.journal(KEY, WHAT).close()

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root")
    def test_a_directory_without_permission(self, store, tmp_path):
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(InfraError, match="Permission denied"):
                store.journal(KEY, WHAT)
        finally:
            tmp_path.chmod(0o700)


class TestOneProcess:
    def test_open_twice(self, store, tmp_path):
        (tmp_path / "again").symlink_to(tmp_path)
        with store.journal(KEY, WHAT) as journal:
            for other in (store, Store(tmp_path), Store(tmp_path / "again")):
                with pytest.raises(RuntimeError, match="already open in this process"):
                    other.journal(KEY, WHAT)
            journal.append({"a": 1})
            store.journal(OTHER, WHAT).close()
        with store.journal(KEY, WHAT) as journal:
            assert journal.records == [{"a": 1}]

    def test_open_in_another_thread(self, store):
        raised = []

        def other():
            try:
                store.journal(KEY, WHAT)
            except RuntimeError as error:
                raised.append(error)

        with store.journal(KEY, WHAT):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(5)
        assert len(raised) == 1

    def test_threads_that_share_a_journal(self, store):
        with store.journal(KEY, WHAT) as journal:
            threads = [
                threading.Thread(target=lambda t=t: [journal.append({"thread": t, "n": n}) for n in range(10)])
                for t in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            written = list(journal.records)
        assert store.peek(KEY) == written
        for t in range(4):
            assert [each["n"] for each in written if each["thread"] == t] == list(range(10))

    def test_opening_that_fails_leaves_nothing_open(self, store, monkeypatch):
        before = len(list(Path("/dev/fd").iterdir()))
        monkeypatch.setattr(os, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.journal(KEY, WHAT)
        monkeypatch.undo()
        assert len(list(Path("/dev/fd").iterdir())) == before
        store.journal(KEY, WHAT).close()

    def test_a_child_has_no_part_in_it(self, tmp_path):
        script = """
journal = Store(root).journal(KEY, {})
journal.append(record(0))
child = os.fork()
if not child:
    for use in (lambda: journal.append(record(9)), journal.restart):
        try:
            use()
        except RuntimeError as error:
            say("refused")
    journal.close()
    os._exit(0)
os.waitpid(child, 0)
say("still" if subprocess.run([sys.executable, "-c", TRY, str(journal.path)]).returncode else "lost")
journal.append(record(1))
journal.close()
say("closed" if not subprocess.run([sys.executable, "-c", TRY, str(journal.path)]).returncode else "held")
"""
        attempt = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        silent = f"import subprocess\nTRY = {'import sys; sys.stderr = None; ' + attempt!r}\n"
        assert run(silent + script, tmp_path) == (0, ["refused", "refused", "still", "closed"])
        assert Store(tmp_path).peek(KEY) == [record(0), record(1)]

    def test_a_child_may_open_its_own(self, tmp_path):
        """To close what it inherited does not close that."""
        script = """
inherited = Store(root).journal(KEY, {})
if os.fork():
    inherited.append(record(0))
    inherited.close()
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
with Store(root).journal(KEY, {}) as own:
    inherited.close()
    own.append(record(1))
    say(len(own.records))
"""
        assert run(script, tmp_path) == (0, ["2"])


class TestSeveralProcesses:
    def test_the_second_waits_and_sees_the_records_of_the_first(self, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "PATIENCE", 0.1)
        said = []
        with start(HOLD, tmp_path) as first:
            assert first.stdout.readline() == "open\n"

            def waiting(message):
                said.append(message)
                threading.Timer(0.2, lambda: first.stdin.write("\n") and first.stdin.flush()).start()

            begun = time.monotonic()
            with Store(tmp_path, waiting=waiting).journal(KEY, WHAT) as journal:
                assert time.monotonic() - begun > 0.3
                assert journal.records == [record(0), record(1)]
                journal.append(record(2))
            first.communicate("\n", timeout=5)
        assert len(said) == 1
        assert str(journal.path) in said[0]
        assert Store(tmp_path).peek(KEY) == [record(n) for n in range(3)]

    def test_a_short_wait_is_not_mentioned(self, store, tmp_path):
        with start(HOLD, tmp_path) as first:
            assert first.stdout.readline() == "open\n"
            threading.Timer(0.2, lambda: first.stdin.write("\n") and first.stdin.flush()).start()
            with store.journal(KEY, WHAT) as journal:
                assert journal.records == [record(0), record(1)]
            first.communicate("\n", timeout=5)

    def test_other_keys_are_free(self, store, tmp_path):
        with start(HOLD, tmp_path) as first:
            assert first.stdout.readline() == "open\n"
            begun = time.monotonic()
            store.journal(OTHER, WHAT).close()
            assert time.monotonic() - begun < 1
            first.communicate("\n\n", timeout=5)

    def test_a_killed_writer_keeps_nothing_locked(self, store, tmp_path):
        with start(HOLD, tmp_path) as first:
            assert first.stdout.readline() == "open\n"
            first.kill()
        with store.journal(KEY, WHAT) as journal:
            assert journal.records == [record(0)]

    def test_nor_does_its_child_that_lives_on(self, store, tmp_path):
        script = """
journal = Store(root).journal(KEY, {})
child = os.fork()
if not child:
    time.sleep(20)
    os._exit(0)
time.sleep(0.1)
say(child)
time.sleep(20)
"""
        first = start(script, tmp_path)
        child = int(first.stdout.readline())
        try:
            first.kill()
            first.wait()
            with store.journal(KEY, WHAT) as journal:
                journal.append(record(0))
            os.kill(child, 0)  # it does live
        finally:
            os.kill(child, signal.SIGKILL)
            first.communicate()

    def test_several_writers_take_turns(self, tmp_path):
        script = """
for turn in range(15):
    with Store(root).journal(KEY, {}) as journal:
        assert not journal.note
        journal.append({"process": os.getpid(), "turn": turn, "number": len(journal.records)})
"""
        writers = [start(script, tmp_path) for _ in range(3)]
        assert [writer.wait(20) for writer in writers] == [0, 0, 0]
        for writer in writers:
            writer.communicate()
        records = Store(tmp_path).peek(KEY)
        assert [each["number"] for each in records] == list(range(45))
        for writer in writers:
            assert [each["turn"] for each in records if each["process"] == writer.pid] == list(range(15))

    def test_a_file_deleted_while_waiting(self, tmp_path, monkeypatch):
        """What is appended afterwards is in a file that has a name."""
        monkeypatch.setattr(module, "PATIENCE", 0.1)
        path = tmp_path / "journal" / "ab" / f"{KEY}.jsonl"
        with start(HOLD, tmp_path) as first:
            assert first.stdout.readline() == "open\n"

            def waiting(_):
                path.unlink()
                path.parent.rmdir()
                threading.Timer(0.1, lambda: first.stdin.write("\n") and first.stdin.flush()).start()

            with Store(tmp_path, waiting=waiting).journal(KEY, WHAT) as journal:
                assert journal.records == []
                journal.append({"a": 1})
            first.communicate("\n", timeout=5)
        assert Store(tmp_path).peek(KEY) == [{"a": 1}]


class TestPeek:
    def test_nothing_there(self, store, tmp_path):
        assert store.peek(KEY) == []
        assert Store(tmp_path / "nowhere").peek(KEY) == []
        assert list(tmp_path.iterdir()) == []

    def test_while_open(self, store, tmp_path):
        with store.journal(KEY, WHAT) as journal:
            assert store.peek(KEY) == []
            journal.append({"a": 1})
            assert store.peek(KEY) == [{"a": 1}]
        with start(HOLD, tmp_path) as other:
            assert other.stdout.readline() == "open\n"
            assert store.peek(KEY) == [{"a": 1}, record(0)]
            other.communicate("\n\n", timeout=5)

    def test_half_a_line(self, store):
        with store.journal(KEY, WHAT) as journal:
            journal.append({"a": 1})
        whole = journal.path.read_bytes()
        journal.path.write_bytes(whole + whole.splitlines(keepends=True)[1][:20])
        assert store.peek(KEY) == [{"a": 1}]
        assert len(journal.path.read_bytes()) == len(whole) + 20  # a reader repairs nothing

    def test_while_another_process_appends(self, store, tmp_path):
        script = """
with Store(root).journal(KEY, {}) as journal:
    for n in range(300):
        journal.append(record(n))
"""
        writer = start(script, tmp_path)
        seen = [0]
        while writer.poll() is None:
            records = store.peek(KEY)
            assert records == [record(n) for n in range(len(records))]
            seen.append(len(records))
        assert writer.returncode == 0
        writer.communicate()
        assert seen == sorted(seen)
        assert len(set(seen)) > 5
        assert len(store.peek(KEY)) == 300

    def test_while_another_process_restarts(self, store, tmp_path):
        """Never the records of two beginnings in one answer."""
        script = """
with Store(root).journal(KEY, {}) as journal:
    for beginning in range(100):
        journal.restart()
        for n in range(3):
            journal.append({"beginning": beginning, "number": n})
"""
        writer = start(script, tmp_path)
        beginnings = set()
        while writer.poll() is None:
            records = store.peek(KEY)
            assert [each["number"] for each in records] == list(range(len(records)))
            assert len({each["beginning"] for each in records}) <= 1
            beginnings |= {each["beginning"] for each in records}
        assert writer.returncode == 0
        writer.communicate()
        assert len(beginnings) > 5

    def test_two_beginnings_never_pass_as_one(self, store):
        """The start of one and the rest of the other, as a slow reader might get them, begun in the same second."""
        with store.journal(KEY, WHAT) as journal:
            for n in range(3):
                journal.append({"n": n})
            first = journal.path.read_bytes().splitlines(keepends=True)
            journal.restart()
            for n in range(3):
                journal.append({"n": n})
            second = journal.path.read_bytes().splitlines(keepends=True)
        journal.path.write_bytes(b"".join(first[:2] + second[2:]))
        assert store.peek(KEY) == [{"n": 0}]


class TestWithoutLocks:
    @pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
    def test_a_file_system_that_knows_none(self, store, monkeypatch, code):
        def flock(*_):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(module.fcntl, "flock", flock)
        with store.journal(KEY, WHAT) as journal:
            assert (
                journal.note == f"{journal.path}: locks are not supported here; let one run at a time use this store."
            )
            journal.append({"a": 1})
            with pytest.raises(RuntimeError, match="already open"):
                store.journal(KEY, WHAT)
        with store.journal(KEY, WHAT) as journal:
            assert journal.records == [{"a": 1}]

    def test_another_failure_is_told(self, store, monkeypatch):
        def flock(*_):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(module.fcntl, "flock", flock)
        with pytest.raises(InfraError, match="Input/output error"):
            store.journal(KEY, WHAT)

    def test_a_platform_that_knows_none(self, tmp_path):
        script = """
with Store(root).journal(KEY, {}) as journal:
    journal.append(record(0))
    say("supported" if "not supported" not in journal.note else "unsupported")
with Store(root).journal(KEY, {}) as journal:
    assert journal.records == [record(0)]
"""
        without = """
sys.modules["fcntl"] = None
del sys.modules["superweight.evidence.store"]
from superweight.evidence.store import Store
"""
        assert run(without + script, tmp_path) == (0, ["unsupported"])
