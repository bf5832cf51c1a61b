import json
import random
import shutil
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from etils import epath

from ste_jax.errors import SteError
from ste_jax.records import Generation, Instruction
from ste_jax.storage import record_set, sink
from ste_jax.storage.readers import IndexedRecords, PickedRecords, iter_records, read_records, read_some
from ste_jax.storage.record_set import RecordSet, read_work
from ste_jax.storage.sink import Work
from ste_jax.storage.success import read_success, require_success
from tests.errors import raises

FINGERPRINT = {"stage": "select", "seed": 0, "config": {"size": 3}, "inputs": {"instructions": "abc"}}
# A line separator, a paragraph separator, a next line, a return and a null: none of them may end a line.
NASTY = 'one\u2028two\u2029three\x85four\r\nfive\x00 "six" \\ seven \U0001f600 é'


def answers(count: int) -> list[Generation]:
    return [
        Generation(id=f"r{i:05d}", text=f"{NASTY} {i}", tokens=[i, i + 1], finish="stop")
        for i in range(count)
    ]


def opened(folder: Path, fingerprint: dict | None = None) -> RecordSet[Generation]:
    return RecordSet(epath.Path(folder), Generation, fingerprint or FINGERPRINT)


def add(records: RecordSet[Generation], added: Sequence[Generation]) -> None:
    for record in added:
        records.add(record.id, [record])


def done(records: RecordSet[Generation]) -> set[str]:
    """The ids of the finished requests among those that the tests add."""
    return {record.id for record in answers(300) if records.is_done(record.id)}


def finished(folder: Path, records: Sequence[Generation], summary: dict | None = None) -> None:
    made = opened(folder)
    add(made, records)
    made.finish(sorted(record.id for record in records), summary or {})


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.jsonl"))}


def test_texts_come_back_as_they_were(tmp_path: Path) -> None:
    finished(tmp_path / "set", answers(3), {"too_long": ["q"]})
    assert read_records(epath.Path(tmp_path / "set"), Generation) == answers(3)
    success = require_success(epath.Path(tmp_path / "set"))
    assert (success.count, success.summary, success.fingerprint) == (3, {"too_long": ["q"]}, FINGERPRINT)
    assert not (tmp_path / "set" / "journal").exists()


@pytest.mark.parametrize("seed", range(4))
def test_neither_order_nor_restarts_change_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(record_set, "_PART_RECORDS", 10)
    records = answers(25)
    finished(tmp_path / "plain", records)
    draw = random.Random(seed)
    waiting = draw.sample(records, len(records))
    while waiting:
        # Some of what was added is flushed, some is lost with the process.
        process = opened(tmp_path / "restarted")
        waiting = [record for record in waiting if not process.is_done(record.id)]
        for record in waiting[: draw.randint(1, 8)]:
            add(process, [record])
            if draw.random() < 0.6:
                process.flush()
    last = opened(tmp_path / "restarted")
    assert done(last) == {record.id for record in records}
    last.finish([record.id for record in records], {})
    assert list(parts(tmp_path / "plain")) == [f"part-0000{i}-of-00003.jsonl" for i in range(3)]
    assert parts(tmp_path / "restarted") == parts(tmp_path / "plain")
    hashes = {require_success(epath.Path(tmp_path / n)).content_hash for n in ("plain", "restarted")}
    assert len(hashes) == 1
    assert read_records(epath.Path(tmp_path / "restarted"), Generation) == records


def test_some_records_are_read_and_no_others_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_set, "_PART_RECORDS", 10)
    finished(tmp_path, answers(25))
    parsed = []
    monkeypatch.setattr(Generation, "from_json", lambda value: parsed.append(value) or Generation(**value))
    indices = [0, 9, 10, 24]
    assert read_some(epath.Path(tmp_path), Generation, indices) == [answers(25)[i] for i in indices]
    assert len(parsed) == len(indices)
    (tmp_path / "part-00001-of-00003.jsonl").unlink()
    with raises("data_damaged", str(tmp_path), "--redo"):
        read_some(epath.Path(tmp_path), Generation, indices)


def test_no_records_are_a_finished_set_too(tmp_path: Path) -> None:
    opened(tmp_path).finish([], {})
    assert read_records(epath.Path(tmp_path), Generation) == []


def test_what_was_flushed_survives_and_the_rest_is_made_again(tmp_path: Path) -> None:
    first = opened(tmp_path)
    add(first, answers(2)[:1])
    first.flush()
    add(first, answers(2)[1:])
    del first
    assert done(opened(tmp_path)) == {"r00000"}


def test_many_records_are_flushed_unasked(tmp_path: Path) -> None:
    first = opened(tmp_path)
    add(first, answers(256))
    assert len(done(opened(tmp_path))) == 256


def test_late_records_are_flushed_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "_FLUSH_SECONDS", 0.01)
    first = opened(tmp_path)
    time.sleep(0.02)
    add(first, answers(1))
    assert len(done(opened(tmp_path))) == 1


def test_half_written_temporary_files_do_no_harm(tmp_path: Path) -> None:
    first = opened(tmp_path)
    add(first, answers(1))
    first.flush()
    (tmp_path / "journal" / ".00000000000000000000-aa.index.0123.tmp").write_text('{"id": "r0')
    (tmp_path / ".SUCCESS.json.0123.tmp").write_text('{"count"')
    (tmp_path / ".part-00000-of-00001.jsonl.0123.tmp").write_text('{"id": "r0')
    again = opened(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
    assert done(again) == {"r00000"}
    add(again, answers(2)[1:])
    again.finish(["r00000", "r00001"], {})
    assert read_records(epath.Path(tmp_path), Generation) == answers(2)


def test_killed_between_the_parts_and_the_success(tmp_path: Path) -> None:
    finished(tmp_path / "plain", answers(3))
    first = opened(tmp_path / "killed")
    add(first, answers(3)[:2])
    first.flush()
    # The parts of a killed finish lie there, one of them short.
    (tmp_path / "killed" / "part-00000-of-00001.jsonl").write_text("short")
    assert read_success(epath.Path(tmp_path / "killed")) is None
    again = opened(tmp_path / "killed")
    add(again, answers(3)[2:])
    again.finish([record.id for record in answers(3)], {})
    assert parts(tmp_path / "killed") == parts(tmp_path / "plain")


def test_killed_between_the_success_and_the_end_of_the_journal(tmp_path: Path) -> None:
    first = opened(tmp_path)
    add(first, answers(2))
    first.flush()
    shutil.copytree(tmp_path / "journal", tmp_path / "kept")
    first.finish(["r00000", "r00001"], {})
    (tmp_path / "kept").rename(tmp_path / "journal")
    assert opened(tmp_path).success is not None
    assert read_records(epath.Path(tmp_path), Generation) == answers(2)


def test_a_request_without_records_is_a_loud_defect(tmp_path: Path) -> None:
    records = opened(tmp_path)
    add(records, answers(1))
    with pytest.raises(RuntimeError, match="'absent'"):
        records.finish(["r00000", "absent"], {})
    assert read_success(epath.Path(tmp_path)) is None
    assert not parts(tmp_path)


@pytest.mark.parametrize("harm", ["edit", "add", "remove"])
def test_tampered_parts_are_refused(tmp_path: Path, harm: str) -> None:
    finished(tmp_path, answers(2))
    part = tmp_path / "part-00000-of-00001.jsonl"
    if harm == "edit":
        part.write_bytes(part.read_bytes().replace(b"seven", b"eleven", 1))
    elif harm == "add":
        shutil.copy(part, tmp_path / "part-00001-of-00001.jsonl")
    else:
        part.unlink()
    with raises("data_damaged", str(tmp_path)):
        read_records(epath.Path(tmp_path), Generation)


@pytest.mark.parametrize(
    ("counts", "code"), [((0, 2), "data_invalid"), ((1, 1), "data_damaged"), ((3, 3), "data_damaged")]
)
def test_wrong_numbers_of_records_are_refused(tmp_path: Path, counts: tuple[int, int], code: str) -> None:
    finished(tmp_path, answers(2))
    path = tmp_path / "SUCCESS.json"
    value = json.loads(path.read_text())
    value["parts"][0]["records"], value["count"] = counts
    path.write_text(json.dumps(value))
    for read in (read_records, IndexedRecords):
        with raises(code, str(tmp_path)):
            list(read(epath.Path(tmp_path), Generation))


def test_an_unfinished_set_is_not_read(tmp_path: Path) -> None:
    add(opened(tmp_path), answers(1))
    with raises("stage_unfinished", str(tmp_path)):
        read_records(epath.Path(tmp_path), Generation)


@pytest.mark.parametrize("done", [False, True])
def test_a_stale_stage_says_what_changed_and_how_to_redo(tmp_path: Path, done: bool) -> None:
    folder = tmp_path / "iteration_2" / "annotate"
    if done:
        finished(folder, answers(1))
    else:
        opened(folder)
    changed = {"stage": "select", "seed": 1, "config": {"size": 4, "extra": "x" * 90}, "inputs": {}}
    with pytest.raises(SteError) as error:
        opened(folder, changed)
    assert error.value.code == "stage_stale"
    text = str(error.value)
    for line in (
        str(folder),
        "  seed: 0 -> 1",
        "  config.size: 3 -> 4",
        "  config.extra: null ->",
        '  inputs.instructions: "abc" -> null',
        "--redo=iteration_2/annotate",
        "--workdir",
    ):
        assert line in text
    assert "x" * 60 not in text
    assert "stage:" not in text


def test_the_stage_of_a_stale_folder_outside_the_iterations(tmp_path: Path) -> None:
    opened(tmp_path / "pairs")
    with raises("stage_stale", "--redo=pairs "):
        opened(tmp_path / "pairs", FINGERPRINT | {"seed": 2})


def test_a_tuple_is_as_good_as_a_list_in_a_fingerprint(tmp_path: Path) -> None:
    opened(tmp_path, FINGERPRINT | {"config": {"languages": ("en", "de"), "quotas": {}}})
    opened(tmp_path, FINGERPRINT | {"config": {"quotas": {}, "languages": ["en", "de"]}})


def test_work_goes_on_after_reopening(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.work.total = 3
    first.add("r00000", answers(1), prompt_tokens=10, generated_tokens=4)
    time.sleep(0.02)
    first.flush()
    before = read_work(epath.Path(tmp_path))
    assert (before.done, before.total, before.prompt_tokens, before.generated_tokens) == (1, 3, 10, 4)
    assert before.seconds >= 0.02

    again = opened(tmp_path)
    assert again.work == before
    again.add("both", answers(3)[1:], prompt_tokens=5, generated_tokens=2)
    again.finish(["r00000", "both"], {})
    after = read_work(epath.Path(tmp_path))
    assert (after.done, after.total, after.prompt_tokens, after.generated_tokens) == (2, 3, 15, 6)
    assert after.seconds > before.seconds
    assert Work(**require_success(epath.Path(tmp_path)).work) == after


def test_a_kill_before_the_progress_is_stored_loses_no_tokens(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.add("r00000", answers(1), prompt_tokens=100, generated_tokens=7)
    first.flush()
    (tmp_path / "PROGRESS.json").unlink()
    again = opened(tmp_path)
    again.add("both", answers(3)[1:], prompt_tokens=5, generated_tokens=2)
    work = again.finish(["r00000", "both"], {}).work
    assert (work["done"], work["prompt_tokens"], work["generated_tokens"]) == (2, 105, 9)


def damage_all(journal: Path) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(b"0" * 8 + line[8:] for line in lines))


def damage_first(journal: Path) -> None:
    content = bytearray(journal.read_bytes())
    content[12] ^= 1
    journal.write_bytes(content)


def cut_last(journal: Path) -> None:
    journal.write_bytes(journal.read_bytes()[:-3])


def leave_alone(journal: Path) -> None:
    assert journal.exists()


@pytest.mark.parametrize("progress", ["kept", "lost", "older"])
@pytest.mark.parametrize(
    ("harm", "left"),
    [
        (damage_all, (0, 0, 0)),
        (damage_first, (2, 5, 2)),
        (cut_last, (2, 105, 9)),
        (Path.unlink, (0, 0, 0)),
        (leave_alone, (3, 105, 9)),
    ],
)
def test_tokens_count_once_whatever_is_damaged(tmp_path: Path, harm, left, progress: str) -> None:
    # The last request costs nothing, as a comparison that does not fit the model.
    costs = [(100, 7), (5, 2), (0, 0)]

    def complete(records: RecordSet[Generation]) -> None:
        for answer, (prompt, generated) in zip(answers(3), costs, strict=True):
            if not records.is_done(answer.id):
                records.add(answer.id, [answer], prompt_tokens=prompt, generated_tokens=generated)

    first = opened(tmp_path)
    first.add(answers(1)[0].id, answers(1), prompt_tokens=100, generated_tokens=7)
    first.flush()
    stored = tmp_path / "PROGRESS.json"
    older = stored.read_bytes()
    complete(first)
    first.flush()
    if progress == "older":
        stored.write_bytes(older)
    elif progress == "lost":
        stored.unlink()
    harm(*(tmp_path / "journal").glob("*.journal"))
    again = opened(tmp_path)
    assert (again.work.done, again.work.prompt_tokens, again.work.generated_tokens) == left
    complete(again)
    work = again.finish([answer.id for answer in answers(3)], {}).work
    assert (work["done"], work["prompt_tokens"], work["generated_tokens"]) == (3, 105, 9)


@pytest.mark.parametrize(
    "content", ['{"done":"1"}', '{"seconds":NaN}', '{"done":-1}', '{"done":null}', '{"other":1}']
)
def test_a_progress_of_other_values_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "PROGRESS.json").write_text(content)
    with raises("data_invalid", "PROGRESS.json"):
        read_work(epath.Path(tmp_path))


def test_a_start_without_its_fingerprint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "STARTED.json").write_text('{"schema_version": 2, "kind": "Generation"}')
    with raises("data_invalid", "STARTED.json"):
        opened(tmp_path)


def test_square_brackets_in_the_name_of_a_workdir(tmp_path: Path) -> None:
    first = opened(tmp_path / "run[1]")
    add(first, answers(1))
    first.flush()
    assert done(opened(tmp_path / "run[1]")) == {"r00000"}
    assert read_work(epath.Path(tmp_path / "run[1]")).done == 1
    first.finish(["r00000"], {})
    assert read_records(epath.Path(tmp_path / "run[1]"), Generation) == answers(1)


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x00\x00", b'{"count"', b"\xff", b"[]"])
def test_broken_files_are_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "iteration_1" / "train"
    finished(folder, answers(1))
    (folder / "PROGRESS.json").write_bytes(content)
    with raises("data_invalid", "train/PROGRESS.json", "delete it"):
        read_work(epath.Path(folder))
    for name in ("SUCCESS.json", "STARTED.json"):
        (folder / name).write_bytes(content)
        with raises("data_invalid", f"train/{name}", "--redo=iteration_1/train"):
            opened(folder)
        (folder / name).unlink()


def test_other_records_are_stored_as_well(tmp_path: Path) -> None:
    one = Instruction(id="q", text=NASTY, source="s", complexity=3)
    records = RecordSet(epath.Path(tmp_path), Instruction, FINGERPRINT)
    records.add(one.id, [one])
    records.finish(["q"], {})
    assert read_records(epath.Path(tmp_path), Instruction) == [one]
    (line,) = (tmp_path / "part-00000-of-00001.jsonl").read_bytes().decode().split("\n")[:-1]
    assert json.loads(line) == one.to_json()
    assert set(json.loads(line)) == {"id", "text", "source", "category", "complexity", "length"}


def test_no_step_holds_all_records(tmp_path: Path) -> None:
    folder, count = epath.Path(tmp_path), 4000
    ids = [f"r{i:05d}" for i in range(count)]
    tracemalloc.start()
    try:
        records = opened(tmp_path)
        for id_ in ids:
            records.add(id_, [Generation(id=id_, text=id_ * 800, tokens=[], finish="stop")])
        records.finish(ids, lambda stored: {"characters": sum(len(record.text) for record in stored)})
        assert sum(len(record.text) for record in iter_records(folder, Generation)) == 4800 * count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The texts are 19 MB; journal positions and what waits to be flushed take 2 to 4 MB.
    assert peak < 6e6
    assert require_success(folder).summary == {"characters": 4800 * count}


def test_memory_sinks_keep_records_by_request() -> None:
    kept = sink.MemorySink()
    assert not kept.is_done("a")
    kept.add("a", answers(2), prompt_tokens=3, generated_tokens=4)
    kept.add("b", [])
    kept.flush()
    assert kept.is_done("a")
    assert kept.is_done("b")
    assert kept.records == {"a": answers(2), "b": []}
    assert kept.work == Work(done=2, prompt_tokens=3, generated_tokens=4)


def test_indexed_records_are_a_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_set, "_PART_RECORDS", 10)
    finished(tmp_path, answers(25))
    found, folder = IndexedRecords(epath.Path(tmp_path), Generation), epath.Path(tmp_path)
    assert len(found) == 25
    assert [found[i] for i in (0, 9, 10, 24, -1)] == [answers(25)[i] for i in (0, 9, 10, 24, 24)]
    assert found[8:12] == answers(25)[8:12]
    assert list(found) == answers(25)
    with pytest.raises(IndexError):
        found[25]
    with raises("data_invalid", str(tmp_path)):
        IndexedRecords(folder, Instruction)
    (tmp_path / "part-00002-of-00003.jsonl").write_text("")
    with raises("data_damaged", "part-00002"):
        IndexedRecords(folder, Generation)[0]


def test_picked_records_are_taken_when_they_are_used() -> None:
    records = answers(9)
    picked = PickedRecords(records, [5, 2, 8])
    assert len(picked) == 3
    assert list(picked) == [records[5], records[2], records[8]]
    assert picked[-1] == records[8]
    assert picked[1:] == [records[2], records[8]]
    records[2] = records[0]
    assert picked[1] == records[0]
