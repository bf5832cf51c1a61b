"""Training by processes of their own, 8 devices in all: stopped, killed, and ended by this process alone."""

import contextlib
import shutil
import signal
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from ste_jax.checkpoint.orbax import TrainCheckpoints, on_mesh
from ste_jax.sharding import TRAIN, make_mesh
from ste_jax.training.batch import Batches
from ste_jax.training.loop import TrainResult, train
from ste_jax.training.metrics import MetricsLog, read_metrics
from ste_jax.training.step import abstract_state
from tests.pods import Ended, Pod, python, same
from tests.training.training_cases import TINY, examples, settings, tiny_model

pytestmark = pytest.mark.pods
SETTINGS = settings(epochs=4, checkpoint_every=5)
WORKER = """
import sys, time
from pathlib import Path
from ste_jax.distributed import monitor, preemption

class Slow:
    def advance(self, records=0, tokens=0):
        time.sleep(0.3)

try:
    with monitor.connected(monitor.read_process_env()):
        preemption.install_handler()
        from test_training_hosts import run
        run(Path(sys.argv[1]), Slow())
except preemption.StopRequested:
    sys.exit(75)
"""


class Unseen:
    def advance(self, records: int = 0, tokens: int = 0) -> None:
        pass


def run(folder: Path, progress: Any) -> TrainResult:
    mesh = make_mesh((2, -1, 1))
    checkpoints = TrainCheckpoints(folder / "checkpoints", keep=2)
    with contextlib.closing(checkpoints), contextlib.closing(MetricsLog(folder)) as metrics:
        return train(
            lambda: tiny_model(mesh),
            TINY,
            Batches(examples(40), SETTINGS, 0, 1),
            SETTINGS,
            rules=TRAIN,
            mesh=mesh,
            checkpoints=checkpoints,
            evaluate=None,
            save_best=lambda model, step: None,
            metrics=metrics,
            progress=progress,
        )


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder)]


def steps_on_disk(folder: Path) -> list[int]:
    return sorted(int(f.parent.name) for f in folder.glob("*/commit_success.txt"))


class Story(NamedTuple):
    """Outcome of a run of four processes that is continued by two, and then by this process."""

    folder: Path
    stopped: list[Ended]
    steps: int
    saved: Path
    killed: list[Ended]
    end: TrainResult


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    with Pod(python(WORKER, str(folder)), workers=4, devices=2) as pod:
        pod.signal_when(lambda: len(losses(folder)) >= 2, 1, signal.SIGTERM)
        stopped = pod.ends()
    steps, saved = len(losses(folder)), folder / "saved"
    shutil.copytree(folder / "checkpoints", saved)
    with Pod(python(WORKER, str(folder)), workers=2, devices=4, heartbeat=6) as pod:
        pod.signal_when(lambda: len(losses(folder)) >= 8, 1, signal.SIGKILL)
        killed = pod.ends()
    return Story(folder, stopped, steps, saved, killed, run(folder, Unseen()))


def test_sigterm_to_one_stops_all_at_the_same_step(story: Story) -> None:
    same(story.stopped, 75)
    assert steps_on_disk(story.saved)[-1] == story.steps < 8


def test_a_killed_process_ends_the_other_with_a_word(story: Story) -> None:
    other, killed = story.killed
    assert killed.code == -signal.SIGKILL
    assert other.code == 76, other.err
    assert "ste: worker 1 of 2 was lost: no sign of life\n" in other.err


def test_the_losses_are_those_of_one_process(story: Story, tmp_path: Path) -> None:
    result = run(tmp_path, Unseen())
    assert len(losses(tmp_path)) == result.steps == story.end.steps == 12
    np.testing.assert_allclose(losses(story.folder), losses(tmp_path), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (2, 2, 2)])
def test_what_four_processes_saved_restores_anywhere(story: Story, shape: tuple[int, int, int]) -> None:
    mesh = make_mesh(shape)
    with jax.set_mesh(mesh):
        target = on_mesh(abstract_state(TINY, TRAIN, SETTINGS, 12), mesh)
    with contextlib.closing(TrainCheckpoints(story.saved, keep=2)) as checkpoints:
        state, meta = checkpoints.restore(story.steps, target)
    assert int(state.step) == story.steps
    assert meta["run"]["total_steps"] == 12
    for ours, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(target), strict=True):
        assert ours.sharding == wanted.sharding
        assert np.isfinite(np.asarray(ours)).all()
