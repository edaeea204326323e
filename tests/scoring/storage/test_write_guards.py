"""Folders of the storage whose writer died: they go, those of the living and those that a row names stay."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from pytest_django import Settings

from scoring.storage.files import Storage, storage
from scoring.storage.write_guards import collect, in_the_making, notes_folder
from tests.processes.write_and_die import write_and_die


@pytest.fixture(autouse=True)
def own_folders(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_HOME = tmp_path / "home"


def test_what_a_dead_process_left_is_removed() -> None:
    write_and_die("snapshots/gone")
    assert storage().names("snapshots/gone") == ["rows.parquet"]
    assert collect(lambda folder: False) == ["snapshots/gone"]
    assert storage().names("snapshots/gone") == []
    assert collect(lambda folder: False) == []


def test_what_a_row_names_stays_though_its_writer_died_at_once() -> None:
    write_and_die("rerankers/whole")
    assert collect(lambda folder: folder == "rerankers/whole") == []
    assert storage().names("rerankers/whole") == ["rows.parquet"]
    assert not any(notes_folder().iterdir())


def test_what_is_being_written_stays_and_what_fails_goes_at_once() -> None:
    with pytest.raises(RuntimeError), in_the_making("snapshots/mine"):
        storage().write_bytes("snapshots/mine/rows.parquet", b"half")
        assert collect(lambda folder: False) == []
        assert storage().names("snapshots/mine") == ["rows.parquet"]
        raise RuntimeError
    assert storage().names("snapshots/mine") == []
    assert not any(notes_folder().iterdir())


def test_what_cannot_be_removed_now_is_removed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: Storage, path: str) -> None:
        raise OSError("the storage does not answer")

    with monkeypatch.context() as away:
        away.setattr(Storage, "remove", unreachable)
        with pytest.raises(RuntimeError), in_the_making("snapshots/later"):
            storage().write_bytes("snapshots/later/rows.parquet", b"half")
            raise RuntimeError
    assert collect(lambda folder: False) == ["snapshots/later"]


def test_another_storages_folders_are_left_alone(settings: Settings, tmp_path: Path) -> None:
    write_and_die("snapshots/elsewhere")
    settings.STORAGE_URL = f"file://{tmp_path / 'other'}"
    assert collect(lambda folder: False) == []
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    assert collect(lambda folder: False) == ["snapshots/elsewhere"]


def test_a_note_whose_writer_died_before_it_got_its_name_goes_and_a_new_one_stays() -> None:
    write_and_die("snapshots/gone")
    old, new = notes_folder() / "old.draft", notes_folder() / "new.draft"
    for draft in (old, new):
        draft.write_text("{")
    os.utime(old, (time.time() - 7200,) * 2)
    assert collect(lambda folder: False) == ["snapshots/gone"]
    assert list(notes_folder().iterdir()) == [new], "its writer may be about to lock it"


@pytest.mark.parametrize("content", ["", "no JSON", "[]", '{"storage": 1, "folder": null}'])
def test_a_note_that_cannot_be_read_keeps_no_other_waiting(content: str) -> None:
    write_and_die("snapshots/gone")
    (notes_folder() / "0000.json").write_text(content)
    assert collect(lambda folder: False) == ["snapshots/gone"]
    assert [path.name for path in notes_folder().iterdir()] == ["0000.unreadable"]


def test_a_folder_that_cannot_be_removed_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        write_and_die(f"snapshots/{name}")
    remove = Storage.remove

    def refuses_b(self: Storage, path: str) -> None:
        if path.endswith("/b"):
            raise PermissionError("snapshots/b is not ours")
        remove(self, path)

    with monkeypatch.context() as refusing:
        refusing.setattr(Storage, "remove", refuses_b)
        with pytest.raises(PermissionError):
            collect(lambda folder: False)
        assert [storage().names(f"snapshots/{name}") for name in ("a", "b", "c")] == [[], ["rows.parquet"], []]
    assert collect(lambda folder: False) == ["snapshots/b"]
