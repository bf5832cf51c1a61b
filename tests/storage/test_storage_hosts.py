"""Record sets and output files of several processes, killed and started again with another number of them."""

import hashlib
import signal
import time
from pathlib import Path

import pytest
from etils import epath

from ste_jax.distributed import process
from ste_jax.records import Generation
from ste_jax.storage import record_set, sink
from ste_jax.storage.jsonl_output import JsonlOutput
from ste_jax.storage.readers import IndexedRecords, read_records
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.success import require_success
from tests.pods import Pod, python, same

WORKER = """
import sys
from pathlib import Path
from ste_jax.distributed import monitor
sys.path.insert(0, sys.argv[1])
from test_storage_hosts import work
with monitor.connected(monitor.read_process_env()):
    work(Path(sys.argv[2]), seconds=float(sys.argv[3]))
"""
IDS = [f"q{i:02d}" for i in range(40)]
_PART_RECORDS = 16


def generations(id_: str) -> list[Generation]:
    """Returns the records of a request: as many as its number modulo 4, so none of some."""
    return [
        Generation(id=f"{id_}/{i}", text=f"{id_} \u2028 {i}", tokens=[i], finish="stop")
        for i in range(int(id_[1:]) % 4)
    ]


def is_assigned(id_: str) -> bool:
    return hashlib.sha256(id_.encode()).digest()[0] % process.count() == process.index()


def summarize(records: IndexedRecords[Generation]) -> dict[str, int]:
    assert len(records) == len(list(records))  # and again:
    return {"texts": sum(len(record.text) for record in records)}


def work(folder: Path, seconds: float) -> None:
    """Writes this process's share of a divided set, an undivided set and an output file."""
    record_set._PART_RECORDS, sink._FLUSH_RECORDS = _PART_RECORDS, 1
    divided = RecordSet(epath.Path(folder / "divided"), Generation, {"seed": 0}, divided=True)
    for ids in (IDS[:20], IDS[20:]):
        for id_ in filter(is_assigned, ids):
            if not divided.is_done(id_):
                time.sleep(seconds)
                divided.add(id_, generations(id_), generated_tokens=1)
                divided.flush()
        # What is added after this, is shared again at the end.
        divided.share()
        assert [divided.read(id_) for id_ in ids] == [generations(id_) for id_ in ids]
    divided.finish(IDS, summarize)
    same_on_all = RecordSet(epath.Path(folder / "undivided"), Generation, {"seed": 0})
    for id_ in IDS:
        same_on_all.add(id_, generations(id_))
    same_on_all.finish(IDS, {})
    assert same_on_all.is_done(IDS[0])
    with JsonlOutput(folder / "out.jsonl", {"seed": 0}, schema="texts") as output:
        for id_ in filter(is_assigned, IDS):
            if not output.is_done(id_):
                output.add(id_, [record.to_json() for record in generations(id_)])
        output.finish(IDS)
        assert len(list(output)) == len([record for id_ in IDS for record in generations(id_)])


def files(folder: Path) -> dict[str, bytes]:
    """Returns the contents, by path, that do not depend on the number of starts."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.name.startswith(("part-", "out"))}


def start(folder: Path, workers: int, seconds: float) -> Pod:
    arguments = [str(Path(__file__).parent), str(folder), str(seconds)]
    return Pod(python(WORKER, *arguments), workers=workers, devices=1, heartbeat=6)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Output of a single process."""
    monkeypatch.setattr(record_set, "_PART_RECORDS", _PART_RECORDS)
    monkeypatch.setattr(sink, "_FLUSH_RECORDS", 1)
    work(tmp_path / "alone", 0.0)
    return tmp_path / "alone"


def test_several_processes_leave_the_bytes_of_one(tmp_path: Path, alone: Path) -> None:
    folder = tmp_path / "run"
    journals = folder / "divided" / "journal"

    def requests() -> int:
        return sum(file.read_bytes().count(b"\n") for file in journals.glob("*.journal"))

    with start(folder, 3, 0.3) as pod:
        pod.signal_when(lambda: requests() >= 6, 2, signal.SIGKILL)
        killed = pod.ends()
    assert killed[2].code == -signal.SIGKILL
    before = requests()
    assert 6 <= before < len(IDS)
    with start(folder, 2, 0.0) as pod:
        same(pod.ends(), 0)
    assert files(folder) == files(alone)
    expected = [record for id_ in IDS for record in generations(id_)]
    assert read_records(epath.Path(folder / "divided"), Generation) == expected
    assert sorted(path.name for path in folder.iterdir()) == ["divided", "out.jsonl", "undivided"]
    success, single = (require_success(epath.Path(f / "divided")) for f in (folder, alone))
    assert (success.content_hash, success.parts) == (single.content_hash, single.parts)
    assert success.parts is not None
    assert [part.records for part in success.parts] == [15, 16, 14, 15]
    assert success.summary == {"texts": sum(len(record.text) for record in expected)}
    # Requests of the killed start were not made again: each is counted once.
    assert success.work["generated_tokens"] <= len(IDS)
    assert not list(folder.rglob("*.tmp"))
    assert not list(folder.rglob("journal"))


MISSING = """
import sys
from pathlib import Path
from etils import epath
from ste_jax.distributed import monitor, process
from ste_jax.records import Generation
from ste_jax.storage.record_set import RecordSet
with monitor.connected(monitor.read_process_env()):
    records = RecordSet(epath.Path(sys.argv[1]), Generation, {}, divided=True)
    if process.index() == 1:
        records.add("made", [])
    records.finish(["made", "lost"], {})
"""


def test_a_request_that_no_process_made_ends_all(tmp_path: Path) -> None:
    with Pod(python(MISSING, str(tmp_path)), workers=2, devices=1) as pod:
        ended = pod.ends()
    same(ended, 1)
    assert all("RuntimeError" in end.err and "'lost'" in end.err for end in ended)
    assert not (tmp_path / "SUCCESS.json").exists()
