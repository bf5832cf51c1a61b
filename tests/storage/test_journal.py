"""Journals: torn and damaged lines are noticed, named, and made again."""

import errno
import logging
import zlib
from pathlib import Path

import pytest
from etils import epath

from ste_jax.storage.journal import Journal, decode_line, encode_line
from tests.errors import raises

NASTY = '{"text":"one\\ttwo\\n\u2028\x85 é"}'


def opened(folder: Path) -> Journal:
    journal = Journal(epath.Path(folder), writes=True)
    journal.load()
    return journal


def written(folder: Path, ids: str = "abc") -> Path:
    """Writes one request per id, and returns the file."""
    journal = opened(folder)
    for id_ in ids:
        journal.append(id_, [NASTY, f'"{id_}"'])
    journal.flush()
    return max(folder.glob("*.journal"))


def test_lines_come_back_as_they_were() -> None:
    line = encode_line('a\t"b"\n', [NASTY, "1"])
    assert line.count(b"\n") == 1
    assert decode_line(line) == ('a\t"b"\n', [NASTY.encode(), b"1"])
    assert decode_line(encode_line("none", [])) == ("none", [])


def test_requests_are_found_again_in_all_files(tmp_path: Path) -> None:
    written(tmp_path, "abc")
    written(tmp_path, "de")
    journal = opened(tmp_path)
    assert all(id_ in journal for id_ in "abcde")
    assert "f" not in journal
    located = journal.locate("eca")
    assert [entry.records for _, entry in located] == [2, 2, 2]
    assert list(journal.stream(located)) == [x for i in "eca" for x in (NASTY.encode(), f'"{i}"'.encode())]


def test_the_last_addition_counts(tmp_path: Path) -> None:
    written(tmp_path)
    journal = opened(tmp_path)
    journal.append("b", ["1"])
    journal.append("b", ["2"])
    assert journal.read("b") == [b"2"]
    assert opened(tmp_path).read("b") == [b"2"]


def test_a_process_start_appends_to_one_file(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    for id_ in "abc":
        journal.append(id_, ["1"])
        journal.flush()
    assert len(list(tmp_path.iterdir())) == 1
    assert journal.read("c") == [b"1"]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    file = written(tmp_path)
    file.write_bytes(file.read_bytes()[:-cut])
    journal = opened(tmp_path)
    assert [id_ in journal for id_ in "abc"] == [True, True, False]
    # What is made again goes into another file: nothing is appended to the torn line.
    journal.append("c", ["1"])
    journal.flush()
    assert all(id_ in opened(tmp_path) for id_ in "abc")


def test_every_flipped_bit_is_noticed_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path)
    content = file.read_bytes()
    first, second, _ = content.split(b"\n", 2)
    for position in range(len(first) + 1, len(first) + 1 + len(second)):
        for bit in range(8):
            changed = bytearray(content)
            changed[position] ^= 1 << bit
            file.write_bytes(changed)
            caplog.clear()
            journal = opened(tmp_path)
            assert [id_ in journal for id_ in "abc"] == [True, False, True]
            assert f"{file}, line 2" in caplog.text
            assert caplog.records[0].levelno == logging.WARNING
    changed = bytearray(content)
    changed[-3] ^= 1
    file.write_bytes(changed)
    caplog.clear()
    opened(tmp_path)
    assert '"c"' in caplog.text


def test_damage_after_the_start_is_refused_with_the_request(tmp_path: Path) -> None:
    file = written(tmp_path)
    journal = opened(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content.replace(b"one", b"oNe"))
    with raises("data_damaged", file.name, "'b'"):
        journal.read("b")
    assert "b" not in opened(tmp_path)


def test_the_tokens_of_a_request_are_stored_with_its_records(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append("a", ["1"], prompt_tokens=100, generated_tokens=7)
    journal.append("b", ["2"], prompt_tokens=20, generated_tokens=3)
    journal.append("c", [])
    journal.flush()
    again = opened(tmp_path)
    assert again.work() == (3, 120, 10)
    assert again.read("a") == [b"1"]
    # A request that was made twice counts once.
    again.append("b", ["2"], prompt_tokens=20, generated_tokens=4)
    again.flush()
    assert opened(tmp_path).work() == (3, 120, 11)


@pytest.mark.parametrize("body", [b"[]", b'["a",1]', b'["a",1,"2"]', b"7", b"{}", b'["a",', b"\xff", b""])
def test_a_line_with_a_right_checksum_and_another_content_is_damaged(body: bytes) -> None:
    assert decode_line(b"%08x\t%s\n" % (zlib.crc32(body), body)) is None


def test_after_a_full_disk_the_same_requests_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)
    journal.append("a", ["1"])
    journal.flush()
    journal.append("b", ["2"])

    def fail(file: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr("ste_jax.storage.journal.sync_file", fail)
        with pytest.raises(OSError, match="No space"):
            journal.flush()
    journal.append("c", ["3"])
    journal.flush()
    for reader in (journal, opened(tmp_path)):
        assert [reader.read(id_) for id_ in "abc"] == [[b"1"], [b"2"], [b"3"]]
