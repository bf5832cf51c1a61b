"""Output files: continued after kills, refused with other settings, written by one process at a time."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from etils import epath

from ste_jax.errors import SteError
from ste_jax.storage.jsonl_output import JsonlOutput, iter_output, read_header
from tests.errors import raises

SETTINGS = {"model": "m", "judge": {"votes": 1, "orders": ["as_given", "swapped"]}}
IDS = [f"r{i:02d}" for i in range(20)]


def opened(path: Path, settings: dict | None = None, schema: str = "comparisons") -> JsonlOutput:
    return JsonlOutput(path, settings or SETTINGS, schema=schema)


def record(id_: str) -> dict:
    return {"id": id_, "text": "one\u2028two\n\tthree", "winner": None, "a": 1}


def make(path: Path, ids: list[str] = IDS) -> list[str]:
    """Continues an output, and returns the ids of the requests that were made now."""
    made = []
    with opened(path) as output:
        for id_ in ids:
            if not output.is_done(id_):
                output.add(id_, [record(id_)])
                made.append(id_)
        output.finish(ids)
    return made


def test_records_are_in_input_order_after_a_header(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with opened(path) as output:
        for id_ in reversed(IDS):
            output.add(id_, [record(id_)], prompt_tokens=2, generated_tokens=3)
        assert not path.exists()
        output.finish(IDS)
        assert list(output) == [record(id_) for id_ in IDS]
        assert (output.work.done, output.work.prompt_tokens, output.work.generated_tokens) == (20, 40, 60)
    header, *lines = path.read_text("utf-8").split("\n")[:-1]
    assert json.loads(header) == {
        "schema": "comparisons",
        "schema_version": 2,
        "settings": SETTINGS,
        "records": 20,
        "sha256": hashlib.sha256(
            re.sub(rb'(?<="sha256":")[0-9a-f]+', b"0" * 64, path.read_bytes(), count=1)
        ).hexdigest(),
    }
    # The fields stand in the order that the caller gave them.
    assert list(json.loads(lines[0])) == ["id", "text", "winner", "a"]
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_finished_file_is_read_without_work_or_lock(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    assert make(path) == IDS
    content = path.read_bytes()
    with opened(path) as first, opened(path) as second:
        assert first.finished
        assert second.is_done("r00")
        assert list(second) == [record(id_) for id_ in IDS]
    assert make(path) == []
    assert path.read_bytes() == content


def test_an_interrupted_output_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    make(tmp_path / "plain.jsonl")
    first = opened(path)
    first.add("r03", [record("r03")])
    first.close()
    second = opened(path)
    assert second.read("r03") == [record("r03")]
    second.add("r07", [record("r07")])  # never flushed
    del second
    assert make(path) == [id_ for id_ in IDS if id_ != "r03"]
    assert path.read_bytes() == (tmp_path / "plain.jsonl").read_bytes()


def test_a_failed_caller_may_try_again(tmp_path: Path) -> None:
    def fail() -> None:
        output = opened(tmp_path / "out.jsonl")
        output.add("r00", [record("r00")])
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            fail()


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_refused_with_the_differences(tmp_path: Path, finished: bool) -> None:
    path = tmp_path / "out.jsonl"
    if finished:
        make(path)
    else:
        opened(path).close()
    other = {"model": "m", "judge": {"votes": 8, "orders": ["as_given", "swapped"]}}
    with raises("output_mismatch", "out.jsonl", "settings.judge.votes: 1 -> 8"):
        opened(path, other)
    with raises("output_mismatch", "out.jsonl", 'schema: "comparisons" -> "scores"'):
        opened(path, schema="scores")
    opened(path).close()  # a refusal keeps no lock


@pytest.mark.parametrize("content", ["text\n", '{"id": "a"}\n', "[1]\n", "{"])
def test_files_that_are_no_outputs_are_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(content)
    with raises("output_mismatch", "out.jsonl"):
        opened(path)
    assert path.read_text() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_ends_within_its_header_is_started_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "out.jsonl"
    make(path)
    content = path.read_bytes()
    header = content.partition(b"\n")[0]
    for length in (2, 3, 9, 10, 11, len(header) // 2, len(header) - 1):
        path.write_bytes(header[:length])
        with raises("data_damaged", str(path), "again"):
            read_header(epath.Path(path))
        caplog.clear()
        assert make(path) == IDS
        assert str(path) in caplog.text
        assert path.read_bytes() == content


def test_an_empty_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out[1].jsonl"
    path.touch()
    assert make(path) == IDS
    assert len(list(iter_output(epath.Path(path)))) == 20


def test_newer_outputs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"schema": "comparisons", "schema_version": 99, "settings": {}}\n')
    with raises("schema_newer", "out.jsonl", "99"):
        opened(path)
    with raises("schema_newer", "out.jsonl", "99"):
        read_header(epath.Path(path))


def test_broken_and_missing_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    make(path)
    lines = path.read_text("utf-8").split("\n")
    path.write_text("\n".join([*lines[:3], "{broken", ""]), "utf-8")
    with raises("data_invalid", "out.jsonl, line 4"):
        list(iter_output(epath.Path(path)))
    path.write_text("\n".join([*lines[:3], ""]), "utf-8")
    with raises("data_damaged", "out.jsonl"):
        list(iter_output(epath.Path(path)))


def test_no_changed_bit_of_a_finished_file_is_used(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    make(path, IDS[:3])
    whole = path.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(whole)), 300):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(changed)
        with pytest.raises(SteError, match=re.escape(str(path))):
            list(iter_output(epath.Path(path)))
    header, *lines = whole.split(b"\n")
    # Without its hash, as earlier versions wrote it, a file is read.
    header = json.dumps({k: v for k, v in json.loads(header).items() if k != "sha256"}).encode()
    path.write_bytes(b"\n".join([header, *lines]))
    assert [found["id"] for found in iter_output(epath.Path(path))] == IDS[:3]


def test_results_are_built_of_the_rows_and_their_records(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    make(path)

    def build(row: str, found: dict) -> tuple[str, str]:
        if found["id"] != row:
            raise SteError("data_invalid", f"not {row}")
        return row, found["text"]

    with opened(path) as output:
        assert output.results(IDS, build) == [(id_, record(id_)["text"]) for id_ in IDS]
        with raises("data_invalid", "out.jsonl, line 3", "not other"):
            output.results([IDS[0], "other", *IDS[2:]], build)
        with raises("data_damaged", "20 records for 19 rows"):
            output.results(IDS[1:], build)


def test_requests_without_records_are_a_loud_defect(tmp_path: Path) -> None:
    with opened(tmp_path / "out.jsonl") as output, pytest.raises(RuntimeError, match="'r00'"):
        output.finish(IDS)
    assert not (tmp_path / "out.jsonl").exists()


def test_there_may_be_no_requests_and_no_records(tmp_path: Path) -> None:
    make(tmp_path / "empty.jsonl", [])
    assert list(iter_output(epath.Path(tmp_path / "empty.jsonl"))) == []
    with opened(tmp_path / "out.jsonl") as output:
        output.add("none", [])
        output.add("two", [record("a"), record("b")])
        output.finish(["none", "two"])
        assert [r["id"] for r in output] == ["a", "b"]


# ---- processes of their own ----

WRITER = """
import sys, time
from pathlib import Path
from ste_jax.storage import sink
from test_jsonl_output import IDS, opened, record
sink._FLUSH_RECORDS = 1
with opened(Path(sys.argv[1])) as output:
    for id_ in IDS:
        if not output.is_done(id_):
            time.sleep(float(sys.argv[2]))
            output.add(id_, [record(id_)])
            with open(sys.argv[1] + ".made", "a") as made:
                made.write(id_ + "\\n")
    output.finish(IDS)
"""


def start(path: Path, seconds: float) -> subprocess.Popen[str]:
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(seconds)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
    )


def wait_for(path: Path, lines: int) -> None:
    deadline = time.monotonic() + 100
    while not path.exists() or path.read_text().count("\n") < lines:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with start(path, 30.0) as process:
        deadline = time.monotonic() + 100
        while not (tmp_path / ".out.jsonl.partial" / "STARTED.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        with raises("output_locked", "out.jsonl"):
            opened(path)
        process.kill()
        process.communicate()
    assert make(path) == IDS


def test_killed_at_any_moment_nothing_is_lost_or_made_twice(tmp_path: Path) -> None:
    path, draw = tmp_path / "out.jsonl", random.Random(0)
    make(tmp_path / "plain.jsonl")
    for kill in (3, 9, 15):
        with start(path, 0.01) as process:
            wait_for(tmp_path / "out.jsonl.made", kill)
            time.sleep(draw.random() * 0.02)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            process.communicate()
    with start(path, 0.0) as process:
        assert process.wait() == 0, process.communicate()[1]
        process.communicate()
    assert path.read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    # A kill between the journal and this list may leave a request out of the list, never in it twice.
    made = (tmp_path / "out.jsonl.made").read_text().split()
    assert len(made) == len(set(made))
    assert len(made) >= len(IDS) - 3


@pytest.mark.parametrize("moment", ["sync", "replace", "rmtree"])
def test_a_kill_while_the_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise KilledError

    path = tmp_path / "out.jsonl"
    make(tmp_path / "plain.jsonl")
    output = opened(path)
    for id_ in IDS:
        output.add(id_, [record(id_)])
    with monkeypatch.context() as patched:
        if moment == "replace":
            patched.setattr(type(output.path), "replace", killed)
        elif moment == "rmtree":
            patched.setattr("shutil.rmtree", killed)
        else:
            patched.setattr("ste_jax.storage.jsonl_output.sync_file", killed)
        with pytest.raises(KilledError):
            output.finish(IDS)
    del output
    assert make(path) == []
    assert path.read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "plain.jsonl"]
