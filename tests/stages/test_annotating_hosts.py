"""Annotation by processes of their own, one of them killed, and by this process after them."""

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from etils import epath

from ste_jax.config import RunConfig, read_config
from ste_jax.records import Comparison
from ste_jax.stages import annotate
from ste_jax.stages.context import Context
from ste_jax.storage.record_set import read_work
from tests.pods import Ended, Pod, python, same
from tests.stages.topic_pairs import topic_pairs

WORKER = """
import sys, time
from pathlib import Path
from jax._src import distributed
from ste_jax.distributed import monitor, preemption, process
from ste_jax.storage import sink

stop_requested = monitor.stop_requested_anywhere

def slowly(mesh):
    time.sleep(0.5)
    return stop_requested(mesh)

try:
    with monitor.connected(monitor.read_process_env()):
        preemption.install_handler()
        # The CPU runtime takes its index from here. On a TPU it differs from the distributed id too.
        distributed.global_state.process_id = process.count() - 1 - process.index()
        sink._FLUSH_SECONDS, monitor.stop_requested_anywhere = 0.0, slowly
        from test_annotating_hosts import work
        work(Path(sys.argv[1]))
except preemption.StopRequested:
    sys.exit(75)
"""
FOLDER = "iteration_1/annotate"


def pairs() -> list[Comparison]:
    return topic_pairs(("bread", "bridges", "clouds", "clocks", "trees", "rivers", "maps", "ships") * 2)


def work(workdir: Path) -> None:
    config = read_config(json.loads((workdir / "config.json").read_text()))
    annotate.run(Context(config, epath.Path(workdir)), 1, pairs())


def journal(workdir: Path) -> int:
    """Returns the number of requests in the journals, which hold a line for each."""
    files = (workdir / FOLDER / "journal").glob("*.journal")
    return sum(file.read_bytes().count(b"\n") for file in files)


class Story(NamedTuple):
    """Outcome of an annotation, and the number of requests that its hosts reported."""

    workdir: Path
    killed: list[Ended]
    stopped: list[Ended]
    served: int
    said: int


@pytest.fixture(scope="module")
def begin(
    make_config: Callable[..., RunConfig], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Path]:
    """Makes workdirs of one configuration."""
    decode = {
        "sequences": 24,
        "buckets": (640,),
        "suffix_chunk": 16,
        "samples_per_slot": 3,
        "prefix_tokens": 8 * 2 * 640,
    }
    config = make_config(
        model=str(tiny_model),
        mesh=(1, -1, 2),
        train_mesh=(1, 1, 1),
        annotate={"samples": 3, "max_new_tokens": 6, "force_verdict": True},
        decode=decode,
    )

    def make() -> Path:
        workdir = tmp_path_factory.mktemp("run")
        (workdir / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
        return workdir

    return make


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.pods)])
def story(request: pytest.FixtureRequest, begin: Callable[[], Path]) -> Story:
    """Two hosts of two devices, one killed; or four in two replica groups, one killed, then one stopped."""
    workdir, workers, stopped = begin(), request.param, []
    with Pod(python(WORKER, str(workdir)), workers=workers, devices=4 // workers, heartbeat=6) as pod:
        pod.signal_when(lambda: journal(workdir) >= 3, workers - 1, signal.SIGKILL)
        killed = pod.ends()
    if workers == 4:
        before = journal(workdir)
        with Pod(python(WORKER, str(workdir)), workers=2, devices=4) as pod:
            pod.signal_when(lambda: journal(workdir) >= before + 2, 1, signal.SIGTERM)
            stopped = pod.ends()
    served, said = journal(workdir), read_work(epath.Path(workdir / FOLDER)).done
    work(workdir)
    return Story(workdir, killed, stopped, served, said)


def test_a_killed_process_ends_the_others_with_a_word(story: Story) -> None:
    *others, last = story.killed
    assert last.code == -signal.SIGKILL
    same(others, 76)
    for end in others:
        assert f"ste: worker {len(others)} of {len(story.killed)} was lost: no sign of life\n" in end.err
        assert "the same command on all workers resumes from there\n" in end.err


def test_sigterm_to_one_stops_both(story: Story) -> None:
    same(story.stopped, 75)


def test_hosts_add_up_what_they_did(story: Story) -> None:
    assert 3 <= story.served < 2 * len(pairs())
    # What the killed one said may be older than what it had done.
    assert story.said == story.served if story.stopped else story.said <= story.served


def test_the_bytes_are_those_of_one_process(story: Story, begin: Callable[[], Path]) -> None:
    alone = begin()
    work(alone)
    part = f"{FOLDER}/part-00000-of-00001.jsonl"
    assert (story.workdir / part).read_bytes() == (alone / part).read_bytes()
    assert len((alone / part).read_text().splitlines()) == 3 * 2 * len(pairs())
    assert not list((story.workdir / FOLDER).glob("PROGRESS-*"))
