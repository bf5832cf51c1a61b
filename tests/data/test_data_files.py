"""Files and folders that are made to take all memory or time."""

import gzip
import itertools
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from ste_jax.data import decompression
from ste_jax.data.rows import read_table
from tests.cpu_limit import cpu_limit
from tests.data.pair_files import lines
from tests.errors import raises

MANY = 2_000_000


def _stream(table: pa.Table, path: Path) -> None:
    # Compressed, as `datasets` never does.
    with ipc.new_stream(path, table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table, max_chunksize=100_000)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("blanks.jsonl.gz", lambda path: path.write_bytes(gzip.compress(b" " * 60_000_000) * 4)),
        ("lines.csv.gz", lambda path: path.write_bytes(gzip.compress(b"a\n" + b"b\n" * 60_000_000))),
        ("nulls.parquet", lambda path: parquet.write_table(pa.table({"text": pa.nulls(MANY)}), path)),
        (
            "one_text.parquet",
            lambda path: parquet.write_table(pa.table({"text": ["a" * 10_000] * 20_000}), path),
        ),
        (
            "one_word.parquet",
            lambda path: parquet.write_table(
                pa.table({"text": pa.array(["a" * 10_000] * 20_000).dictionary_encode()}), path
            ),
        ),
        ("blanks.arrow", lambda path: _stream(pa.table({"text": [" " * 100_000] * 1_500}), path)),
        (
            "one_text.arrow",
            lambda path: _stream(
                pa.table({"text": pa.array(["a" * 10_000] * 20_000).dictionary_encode()}), path
            ),
        ),
    ],
)
def test_files_that_hold_far_more_than_their_size_are_refused(tmp_path, name, write):
    write(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 1_500_000
    with raises("data_invalid", name), cpu_limit(20):
        read_table(str(tmp_path / name))


def test_files_that_compress_well_are_read(tmp_path):
    rows = [{"text": f"the same words again and again {n}" * 20, "source": "web"} for n in range(2_000)]
    lines(tmp_path / "a.jsonl", *rows)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    table = pa.Table.from_pylist(rows)
    table = table.set_column(1, "source", table["source"].dictionary_encode())
    parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    _stream(table, tmp_path / "a.arrow")
    for name in ("a.jsonl.gz", "a.parquet", "a.arrow"):
        assert [row.fields for row in read_table(str(tmp_path / name)).rows] == rows


def test_the_bound_grows_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(decompression, "_ALWAYS", 1_000)
    path = tmp_path / "a.txt.gz"
    for text, is_read in ((os.urandom(50_000).hex(), True), ("a" * 50_000, False)):
        path.write_bytes(gzip.compress(text.encode()))
        if is_read:
            assert read_table(str(path), text_lines=True).rows[0].fields["text"] == text
        else:
            with raises("data_invalid", path.name):
                read_table(str(path), text_lines=True)


def test_links_in_circles_come_to_an_end(tmp_path):
    lines(tmp_path / "p.jsonl", {"text": "a"})
    for name in ("first", "second"):
        (tmp_path / name).symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    with cpu_limit(5):
        assert [row.fields["text"] for row in read_table(str(tmp_path)).rows] == ["a"]


@pytest.mark.parametrize("content", [b"\0", b"\0\0\0", b"\0\0\0\0", b"a\0\0", b"\xff\xfe", b"\xff"])
def test_a_few_bytes_are_refused(tmp_path, content):
    (tmp_path / "p.jsonl").write_bytes(content)
    with raises("data_invalid", "p.jsonl"):
        read_table(str(tmp_path / "p.jsonl"))


def test_offsets_out_of_a_table_are_refused(tmp_path):
    table = pa.table({"text": ["first", "second", "third"]})
    path = tmp_path / "t.arrow"
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    content = path.read_bytes()
    offsets = np.array([0, 5, 11, 16], np.int32).tobytes()
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, np.array([0, 5, 2**30, 16], np.int32).tobytes()))
    with raises("data_invalid", "t.arrow"):
        read_table(str(path))


def test_links_to_missing_files_are_refused(tmp_path):
    lines(tmp_path / "a.jsonl", {"text": "a"})
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "missing")
    with raises("file_not_found", "b.jsonl"):
        read_table(str(tmp_path))


@pytest.mark.parametrize("given", ["file", "folder"])
def test_pipes_are_refused_without_waiting(tmp_path, given):
    os.mkfifo(tmp_path / "p.jsonl")
    with cpu_limit(5), raises("data_invalid", "p.jsonl"):
        read_table(str(tmp_path / "p.jsonl" if given == "file" else tmp_path))


@pytest.mark.parametrize("copy", ["a.jsonl.gz", "a (1).jsonl", "a_windows.jsonl"])
def test_copies_in_another_form_are_refused(tmp_path, copy):
    content = b'{"text": "a"}\n{"text": "b"}\n'
    (tmp_path / "a.jsonl").write_bytes(content)
    forms = {"a.jsonl.gz": gzip.compress(content), "a (1).jsonl": content.rstrip()}
    (tmp_path / copy).write_bytes(forms.get(copy, b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")))
    with raises("data_invalid", "a.jsonl", copy):
        read_table(str(tmp_path))


def test_links_that_double_at_every_step_come_to_an_end(tmp_path):
    chain = [tmp_path / f"set{n}" for n in range(40)]
    for folder in chain:
        folder.mkdir()
    for folder, following in itertools.pairwise(chain):
        for name in ("one", "two"):
            (folder / name).symlink_to(following)
    lines(chain[-1] / "p.jsonl", {"text": "a"})
    with cpu_limit(5):
        assert len(read_table(str(chain[0])).rows) == 1


def test_a_folder_is_named_by_its_own_path_and_not_by_a_link_to_it(tmp_path):
    (tmp_path / "data").mkdir()
    lines(tmp_path / "data" / "p.jsonl", {"text": "a"})
    (tmp_path / "a_link").symlink_to(tmp_path / "data")
    (row,) = read_table(str(tmp_path)).rows
    assert str(Path("data") / "p.jsonl") in row.where


def test_a_name_that_no_file_can_have_is_named(tmp_path):
    with raises("file_not_found", "aaaa.csv"):
        read_table(str(tmp_path / ("a" * 300 + ".csv")))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up the rights of root for a moment")
@pytest.mark.parametrize(
    ("closed", "mode", "read"),
    [
        ("folder", 0, "."),
        ("folder", 0o444, "."),
        ("folder", 0, "folder"),
        ("folder/q.jsonl", 0, "folder"),
        ("folder/q.jsonl", 0, "folder/q.jsonl"),
    ],
)
def test_what_may_not_be_read_is_named(closed, mode, read):
    # Not in `tmp_path`, whose parents are for the user alone who runs the tests.
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        (base / "folder").mkdir()
        for stem in ("p", "q"):
            lines(base / "folder" / f"{stem}.jsonl", {"text": stem})
        (base / closed).chmod(mode)
        os.seteuid(65_534)
        try:
            with raises("file_unreadable", closed):
                read_table(str(base / read))
        finally:
            os.seteuid(0)
