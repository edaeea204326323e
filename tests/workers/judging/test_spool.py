"""Answers on disk: what a dead process kept is stored once, by whoever comes next, and a living one is left alone."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from hypothesis import given
from hypothesis import strategies as st

from labeling.models import Judgment
from labeling.records import AnswerKind, Failure, FailureKind, Usage, Verdict
from tests.factories.rows import make_tasks
from tests.factories.working import claim
from tests.processes.threads import at_once
from workers.endpoints.failures import NotAsked
from workers.judging import batches, queue, recorder, spool
from workers.judging.queue import ClaimedTask
from workers.judging.spool import Leftover, Spool, leftovers
from workers.models import Attempt, JudgingTask


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own for this process's spool."""
    monkeypatch.setattr(settings, "ZELO_HOME", tmp_path)
    spool.forget_own()
    yield tmp_path / "spool"
    spool.forget_own()


def die() -> None:
    """What the kernel does to the file of a process that was killed: it closes it, and the lock is gone."""
    spool.forget_own()


def contents(folder: Path) -> list[Any]:
    return [spool.decode(line) for path in folder.glob("*.jsonl") for line in path.read_bytes().splitlines()]


def read_leftovers(folder: Path) -> list[Leftover]:
    found = []
    for left in leftovers(folder):
        left.read()
        found.append(left)
    return found


def verdict(preference: float = 0.25) -> Verdict:
    return Verdict(preference, rationale="because", usage=Usage(11, 2, 7, 0.5))


class TestFile:
    def test_what_is_written_stays_until_it_is_dropped(self, folder: Path) -> None:
        own = Spool(folder)
        own.write(1, "one")
        own.write(2, "two")
        own.write(1, "one again")
        own.sync()
        assert contents(folder) == ["one", "two"]
        own.drop([1])
        assert own.kept == 1 and "two" in contents(folder)
        own.drop([2])
        assert contents(folder) == []

    def test_the_file_of_a_living_process_is_nobody_elses(self, folder: Path) -> None:
        own = Spool(folder)
        own.write(1, "one")
        assert list(leftovers(folder)) == []
        own.close()
        (left,) = read_leftovers(folder)
        assert (left.token, left.values) == (own.token, ["one"])

    def test_only_one_of_two_gets_a_dead_ones_file(self, folder: Path) -> None:
        Spool(folder).close()
        first = leftovers(folder)
        assert next(first).token
        assert list(leftovers(folder)) == []
        first.close()  # type: ignore[attr-defined]
        assert len(list(leftovers(folder))) == 1

    def test_a_child_of_a_fork_does_not_hold_its_parents_lock(self, folder: Path) -> None:
        mine = spool.own_spool()
        with multiprocessing.get_context("fork").Pool(1) as pool:
            pool.apply(os.getpid)  # it has begun
            mine.close()
            assert [left.token for left in leftovers(folder)] == [mine.token]

    def test_a_torn_last_line_costs_no_other(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        own = Spool(folder)
        for number in range(3):
            own.write(number, {"number": number})
        own.close()
        (path,) = folder.glob("*.jsonl")
        path.write_bytes(path.read_bytes()[:-5])
        (left,) = read_leftovers(folder)
        assert left.values == [{"number": 0}, {"number": 1}]
        assert "unfinished line" in caplog.text

    def test_a_damaged_line_is_put_aside_and_costs_no_other(self, folder: Path) -> None:
        own = Spool(folder)
        for number in range(3):
            own.write(number, {"number": number})
        own.close()
        (path,) = folder.glob("*.jsonl")
        damaged = path.read_bytes().replace(b'"number":1', b'"number":7')
        path.write_bytes(damaged)
        (left,) = read_leftovers(folder)
        assert (left.values, left.damaged) == ([{"number": 0}, {"number": 2}], 1)
        assert b'"number":7' in (folder / "rejected.log").read_bytes()

    def test_a_file_that_never_runs_empty_does_not_grow_without_end(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spool, "COMPACT_BYTES", 4096)
        own = Spool(folder)
        for number in range(400):
            own.write(number, {"number": number, "filler": "x" * 50})
            own.drop([number - 1])
        (path,) = folder.glob("*.jsonl")
        assert path.stat().st_size < 8192
        assert contents(folder)[-1]["number"] == 399
        assert list(leftovers(folder)) == [], "the rewritten file is locked as well"

    def test_what_is_written_does_not_wait_for_the_disk_but_whoever_syncs_does(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = Spool(folder)
        own.write(1, "one")
        on_disk, began = threading.Event(), threading.Event()
        fsync = os.fsync

        def slow(file: int) -> None:
            began.set()
            assert on_disk.wait(10)
            fsync(file)

        monkeypatch.setattr(os, "fsync", slow)
        with ThreadPoolExecutor(2) as others:
            first = others.submit(own.sync)
            assert began.wait(10)
            own.write(2, "two")  # would never come back if it waited
            second = others.submit(own.sync)
            time.sleep(0.1)
            assert not first.done() and not second.done(), "both rely on what is not on the disk yet"
            on_disk.set()
        assert first.done() and second.done() and not own._unsynced

    def test_what_is_written_while_a_file_is_rewritten_is_in_the_new_one(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spool, "COMPACT_BYTES", 10)
        own = Spool(folder)
        own.write(1, "long" * 10)
        own.write(2, "two")
        fsync = os.fsync

        def and_write(file: int) -> None:
            own.write(3, "three")
            fsync(file)

        monkeypatch.setattr(os, "fsync", and_write)
        own.drop([1])
        assert contents(folder) == ["two", "three"]
        own.close()
        (left,) = read_leftovers(folder)
        assert left.values == ["two", "three"]

    def test_a_full_disk_is_warned_of_once_and_leaves_whole_lines(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        own = Spool(folder)
        own.write(1, "fits")
        (path,) = folder.glob("*.jsonl")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
        try:
            own.write(2, "x" * 100)
            own.write(3, "x" * 100)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert contents(folder) == ["fits"]
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert "make room" in caplog.text
        own.write(2, "now")
        assert contents(folder) == ["fits", "now"]

    def test_a_folder_that_cannot_be_written_stops_nobody(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder.write_text("a file stands in the way")
        own = Spool(folder)
        own.write(1, "one")
        own.sync()
        own.drop([1])
        assert own.token and own.kept == 0
        assert "cannot be kept on disk" in caplog.text

    @given(st.dictionaries(st.text(), st.none() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers())))
    def test_every_value_comes_back_as_it_was(self, value: Any) -> None:
        line = spool.encode(value)
        assert line.endswith(b"\n") and b"\n" not in line[:-1]
        assert spool.decode(line[:-1]) == value

    @given(st.binary(max_size=40))
    def test_no_other_bytes_pass_for_a_line(self, noise: bytes) -> None:
        with pytest.raises(ValueError):
            spool.decode(noise)


@pytest.mark.usefixtures("stub_plugins")
@pytest.mark.django_db
class TestAnswers:
    def claimed(self, count: int = 1, *, worker: str = "w@host:1") -> list[ClaimedTask]:
        return claim(make_tasks(count)[0], worker=recorder.holder_name(worker))

    def test_the_disk_has_the_answer_when_the_database_hears_of_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claimed = self.claimed(2)
        seen: list[int] = []
        monkeypatch.setattr(queue, "finish", lambda answered: seen.append(len(contents(folder))))
        recorder.store([(task, verdict()) for task in claimed], spooled=True)
        assert seen == [2]
        assert contents(folder) == []

    def test_what_a_dead_process_kept_is_stored_and_its_other_leases_end(self, folder: Path) -> None:
        first, second, third = self.claimed(3)
        recorder.keep(first, verdict())
        recorder.keep(second, Failure(FailureKind.REFUSAL, "no", retryable=False, usage=Usage(5, 1, 3)))
        die()
        assert recorder.recover() == 2
        judgment = Judgment.objects.get()
        assert (judgment.pair_id, judgment.preference, judgment.rationale.text) == (first.pair_id, 0.25, "because")
        states = dict(JudgingTask.objects.values_list("id", "state"))
        assert states == {second.id: "dead", third.id: "open"}
        books = dict(Attempt.objects.values_list("task_id", "outcome"))
        assert books == {first.id: "preference", second.id: "refusal", third.id: "lost"}
        assert Attempt.objects.get(task_id=first.id).cost_micros == 7
        assert list(folder.glob("*.jsonl")) == []

    def test_a_living_process_keeps_its_leases_and_its_file(self, folder: Path) -> None:
        claimed = self.claimed(2)
        recorder.keep(claimed[0], verdict())
        assert recorder.recover() == 0
        assert JudgingTask.objects.filter(state="leased").count() == 2
        assert len(contents(folder)) == 1

    def test_recovering_twice_changes_nothing_the_second_time(self, folder: Path) -> None:
        (task,) = self.claimed()
        recorder.keep(task, verdict())
        (path,) = folder.glob("*.jsonl")
        content = path.read_bytes()
        die()
        recorder.recover()
        path.write_bytes(content)
        recorder.recover()
        assert Judgment.objects.count() == Attempt.objects.count() == 1

    def test_an_answer_that_no_table_takes_is_put_aside_and_costs_no_other(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        tasks = self.claimed(4)
        for task in tasks:
            recorder.keep(task, verdict())
        die()
        with connection.cursor() as cursor:  # as if its pair had been deleted meanwhile
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        gone = JudgingTask.objects.get(pk=tasks[1].id).pair
        gone.tasks.all().delete()
        gone.delete()
        assert recorder.recover() == 4
        assert Judgment.objects.count() == 3
        assert f'"task":[{tasks[1].id},' in (folder / "rejected.log").read_text()
        assert "cannot be stored" in caplog.text

    def test_answers_of_another_database_wait_for_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, second = self.claimed(2)
        recorder.keep(first, verdict())
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(recorder, "database_mark", lambda: "another")
            recorder.keep(second, verdict())
            die()
            assert [recorder.recover(), recorder.recover()] == [1, 0]
            assert Judgment.objects.get().pair_id == second.pair_id
        assert caplog.text.count("answers of another database") == 1, "said once"
        assert not (folder / "rejected.log").exists()
        assert len(contents(folder)) == 2, "the file stays whole"
        assert recorder.recover() == 1
        assert Judgment.objects.filter(pair=first.pair_id).exists()

    def test_a_full_disk_costs_no_answer_and_holds_up_no_other(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, second, third = self.claimed(3)
        recorder.keep(first, verdict())
        spool.own_spool().write("nonsense", {"database": recorder.database_mark()})
        recorder.keep(second, verdict())
        die()
        spool.own_spool().write("another", recorder._encode(third, verdict()))
        die()
        (folder / "rejected.log").mkdir()  # as a disk that takes nothing more
        assert recorder.recover() == 3
        assert Judgment.objects.count() == 3
        assert len(list(folder.glob("*.jsonl"))) == 1, "what could not be put aside stays"
        assert recorder.recover() == 0, "it is not tried again at once"
        (folder / "rejected.log").rmdir()
        monkeypatch.setattr(recorder, "_left", {})  # a minute later
        recorder.recover()
        assert list(folder.glob("*.jsonl")) == [] and (folder / "rejected.log").stat().st_size
        assert Judgment.objects.count() == 3 == Attempt.objects.count()

    def test_what_was_never_asked_is_not_kept(self, folder: Path) -> None:
        (task,) = self.claimed()
        recorder.store([(task, NotAsked(FailureKind.RATE_LIMITED, "full", retryable=True))], spooled=True)
        assert contents(folder) == []
        assert JudgingTask.objects.get().state == "open"

    @pytest.mark.parametrize(
        "answer",
        [
            Verdict(0.1 + 0.2, rationale="a\x00b\ud800c", usage=Usage(1, 2, 3, 0.25, (Usage(1), Usage(0, 2, 3)))),
            Verdict(None, AnswerKind.CANNOT_JUDGE, truncated=True),
            Failure(FailureKind.RATE_LIMITED, "later", retryable=True, retry_after_s=1.5, usage=Usage(9, 9, 9)),
        ],
    )
    def test_every_answer_comes_back_from_disk_as_it_was(self, answer: Verdict | Failure, folder: Path) -> None:
        (task,) = self.claimed()
        recorder.keep(task, answer)
        assert [recorder._decode(value) for value in contents(folder)] == [(task, answer)]

    @pytest.mark.parametrize(("drifts", "kept"), [(True, 3), (False, 0)])
    def test_only_what_could_not_be_had_again_goes_to_disk(
        self, drifts: bool, kept: int, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tests.factories.stubs.plugins import LongerJudge

        tasks = make_tasks(3)
        monkeypatch.setattr(LongerJudge, "can_drift", drifts)
        on_disk: list[int] = []
        finish = queue.finish

        def look(answered: Any) -> Any:
            on_disk.append(len(contents(folder)))
            return finish(answered)

        monkeypatch.setattr(queue, "finish", look)
        assert batches.judge_open(tasks[0].annotator_id, worker="w@host:1") == 3
        assert on_disk == [kept]


@pytest.mark.usefixtures("stub_plugins")
@pytest.mark.django_db(transaction=True)
class TestDatabaseAway:
    def lose_connections(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        """Let the server end our connection each time that answers are about to be stored, so many times."""
        finish, left = queue.finish, iter(range(times))

        def end_ours() -> None:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

        def lost(answered: Any) -> Any:
            if next(left, None) is not None:
                connection.ensure_connection()
                at_once(end_ours)
            return finish(answered)

        monkeypatch.setattr(queue, "finish", lost)

    @pytest.mark.parametrize("spooled", [True, False])
    def test_answers_wait_until_it_is_back(
        self, spooled: bool, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        claimed = claim(make_tasks(3)[0])
        self.lose_connections(monkeypatch, 2)
        assert recorder.store([(task, verdict()) for task in claimed], spooled=spooled) == 3
        assert Judgment.objects.count() == 3
        assert caplog.text.count("answers wait for the database") == 2

    def test_when_patience_ends_they_wait_on_disk_and_the_leases_stay(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tasks = make_tasks(4)
        *answered, asked = claim(tasks[0], worker=recorder.holder_name("w@host:1"))
        self.lose_connections(monkeypatch, 1)
        monkeypatch.setattr(recorder, "PATIENCE_S", 0.0)
        with pytest.raises(OperationalError):
            recorder.store([(task, verdict()) for task in answered], spooled=True)
        connection.close()
        assert len(contents(folder)) == 3
        assert recorder.recover() == 3
        assert Judgment.objects.count() == 3
        assert JudgingTask.objects.get().id == asked.id
        assert JudgingTask.objects.get().state == "leased", "its process lives and still asks"


@pytest.mark.usefixtures("stub_plugins")
@pytest.mark.django_db(transaction=True)
def test_leases_last_as_long_as_a_judge_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.factories.stubs.plugins import LongerJudge
    from workers.judging import leases

    monkeypatch.setattr(leases, "EXTEND_EVERY_S", 0.1)
    tasks = make_tasks(2)
    claimed = claim(tasks[0], lease_s=0.5)
    reaped: list[int] = []
    ask: Callable[..., Any] = LongerJudge.judge

    def slowly(self: LongerJudge, comparisons: Any) -> Any:
        time.sleep(0.8)
        reaped.append(at_once(queue.reap)[0])
        return ask(self, comparisons)

    monkeypatch.setattr(LongerJudge, "judge", slowly)
    leases._forget()  # a thread of an earlier test waits longer
    assert batches.judge_claimed(tasks[0].annotator, claimed) == 2
    assert reaped == [0]
    leases._forget()
