import os
from pathlib import Path

import pytest
from etils import epath

from ste_jax.storage.files import (
    canonical_json,
    digest,
    digest_all,
    read_json,
    remove,
    remove_temporaries,
    write_atomically,
)
from tests.errors import raises


def test_canonical_json_is_one_text_a_value() -> None:
    assert canonical_json({"b": [1, 2.5], "a": "é\u2028"}) == '{"a":"é\u2028","b":[1,2.5]}'
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


@pytest.mark.parametrize("values", [[], [1], [{"b": "\u2028", "a": None}, [], "x"]])
def test_digests_of_streams_are_those_of_lists(values: list) -> None:
    assert digest_all(iter(values)) == digest(values)


def test_writing_atomically_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomically(epath.Path(tmp_path / "file"), "old")
    write_atomically(epath.Path(tmp_path / "file"), "new é")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "new é"


def test_content_and_name_of_a_renamed_file_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, synced = os.fsync, []

    def watched(number: int) -> None:
        fsync(number)
        path = Path(f"/proc/self/fd/{number}").resolve()
        content = sorted(p.name for p in path.iterdir()) if path.is_dir() else path.read_text("utf-8")
        synced.append((content, (tmp_path / "file").exists()))

    monkeypatch.setattr(os, "fsync", watched)
    write_atomically(epath.Path(tmp_path / "file"), "new é")
    assert synced == [("new é", False), (["file"], True)]


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    for name in (".SUCCESS.json.0a.tmp", ".part.jsonl.0b.tmp", "kept.tmp", ".kept"):
        (tmp_path / name).write_text("")
    remove_temporaries(epath.Path(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".kept", "kept.tmp"]


def test_what_a_killed_removal_left_goes_with_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]"
    # Process ids come again: in a container the next start has the same one.
    for name in (f".a[1].deleted.{os.getpid()}", ".a[1].deleted.0a1b", ".a1.deleted.7"):
        (tmp_path / name / "journal").mkdir(parents=True)
    folder.mkdir()
    remove(epath.Path(folder))
    remove(epath.Path(tmp_path / "nowhere" / "absent"))
    assert [path.name for path in tmp_path.iterdir()] == [".a1.deleted.7"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with raises("file_not_found", "absent.json"):
        read_json(tmp_path / "absent.json", "make it")
