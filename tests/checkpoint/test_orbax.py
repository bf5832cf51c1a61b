import dataclasses
import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from ste_jax import logs
from ste_jax.checkpoint.orbax import (
    TrainCheckpoints,
    load_parameter,
    on_mesh,
    parameter_shapes,
    save_parameter,
)
from ste_jax.models.llama import Llama, LlamaConfig, initialize
from ste_jax.sharding import TRAIN, make_mesh
from tests.errors import raises

CFG = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    context_length=64,
)
ADAM = optax.adamw(1e-2)
META = {"epoch": 1, "loss": [1.5, 1.25], "config": {"name": "quickstart"}}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    step: jax.Array
    model: Llama
    opt_state: Any


def init(key: jax.Array, cfg: LlamaConfig = CFG) -> State:
    model = initialize(cfg, TRAIN, key, param_dtype="float32", dtype="float32")
    return State(jnp.int32(0), model, ADAM.init(model))


@jax.jit
def train(state: State) -> State:
    gradients = jax.tree.map(lambda x: x * state.step.astype(x.dtype), state.model)
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to its integer count
        updates, opt_state = ADAM.update(gradients, state.opt_state, state.model)
    return State(state.step + 1, optax.apply_updates(state.model, updates), opt_state)


def abstract(mesh: jax.sharding.Mesh, cfg: LlamaConfig = CFG) -> State:
    with jax.set_mesh(mesh):
        return on_mesh(jax.eval_shape(lambda key: init(key, cfg), jax.random.key(0)), mesh)


def assert_same(ours: State, other: State) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(other)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(other), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


@pytest.fixture(scope="module")
def state() -> State:
    random = np.random.default_rng(0)
    mesh = make_mesh((1, 4, 2))
    target = abstract(mesh)
    arrays = jax.tree.map(lambda s: np.abs(random.normal(2.0, size=s.shape)).astype(s.dtype), target)
    with jax.set_mesh(mesh):
        return train(jax.tree.map(lambda array, s: jax.device_put(array, s.sharding), arrays, target))


def test_a_state_moves_to_any_mesh(state: State, tmp_path: Path) -> None:
    checkpoints = TrainCheckpoints(tmp_path, keep=1)
    checkpoints.save(2, state, META)
    for shape in ((1, 1, 1), (2, 2, 2)):
        target = abstract(make_mesh(shape))
        restored, meta = checkpoints.restore(2, target)
        assert meta == META
        assert_same(restored, state)
        for ours, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(target), strict=True):
            assert ours.sharding == wanted.sharding
    checkpoints.close()


def test_resumed_training_is_bit_for_bit_the_uninterrupted_one(state: State, tmp_path: Path) -> None:
    mesh = make_mesh((1, 4, 2))
    first = TrainCheckpoints(tmp_path, keep=1)
    first.save(2, state, {})
    first.close()
    second = TrainCheckpoints(tmp_path, keep=1)
    restored, _ = second.restore(second.latest_step(), abstract(mesh))
    with jax.set_mesh(mesh):
        assert_same(train(train(restored)), train(train(state)))
    second.close()


def test_steps_are_kept_and_listed(tmp_path: Path) -> None:
    checkpoints = TrainCheckpoints(tmp_path / "run" / "checkpoints", keep=2)
    assert (checkpoints.steps(), checkpoints.latest_step()) == ([], None)
    for step in (5, 10, 100):
        checkpoints.save(step, {"x": jnp.full(3, step)}, {})
    assert (checkpoints.steps(), checkpoints.latest_step()) == ([10, 100], 100)
    for step in (100, 50):
        with raises("checkpoint_exists", str(tmp_path), f"step {step}", "[10, 100]"):
            checkpoints.save(step, {"x": jnp.ones(3)}, {})
    with raises("checkpoint_missing", str(tmp_path), "step 5", "[10, 100]"):
        checkpoints.restore(5, {})
    checkpoints.close()


def test_relative_folders_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = TrainCheckpoints("here", keep=1)
    checkpoints.save(1, {"x": jnp.ones(3)}, {})
    checkpoints.close()
    assert (tmp_path / "here" / "1").is_dir()


def test_half_written_folders_are_no_steps(tmp_path: Path) -> None:
    checkpoints = TrainCheckpoints(tmp_path, keep=2)
    checkpoints.save(1, {"x": jnp.full(3, 1.0)}, {})
    checkpoints.save(2, {"x": jnp.full(3, 2.0)}, {})
    checkpoints.close()
    (tmp_path / "2" / "commit_success.txt").unlink()
    (tmp_path / "3").mkdir()
    (tmp_path / "4.orbax-checkpoint-tmp").mkdir()
    again = TrainCheckpoints(tmp_path, keep=2)
    assert again.steps() == [1]
    again.save(2, {"x": jnp.full(3, 20.0)}, {})
    assert again.steps() == [1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2"]
    target = {"x": jax.ShapeDtypeStruct((3,), jnp.float32)}
    assert again.restore(2, on_mesh(target, make_mesh((1, 1, 1))))[0]["x"][0] == 20.0
    again.close()


KILLED = """
import os, signal, sys, threading, time
import jax.numpy as jnp
from ste_jax import logs
from ste_jax.checkpoint.orbax import TrainCheckpoints

folder = sys.argv[1]
checkpoints = TrainCheckpoints(folder, keep=3)
checkpoints.save(1, {"x": jnp.ones(8)}, {"n": 1})

def kill_while_writing():
    while not any("tmp" in name for name in os.listdir(folder)):
        pass
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill_while_writing).start()
checkpoints.save(2, {str(i): jnp.full((1000, 1000), i, jnp.float32) for i in range(50)}, {"n": 2})
time.sleep(60)
"""


def test_a_process_killed_while_saving_leaves_the_last_whole_step(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert any("tmp" in p.name for p in tmp_path.iterdir())
    checkpoints = TrainCheckpoints(tmp_path, keep=3)
    assert checkpoints.steps() == [1]
    target = on_mesh({"x": jax.ShapeDtypeStruct((8,), jnp.float32)}, make_mesh((1, 1, 1)))
    assert checkpoints.restore(1, target)[1] == {"n": 1}
    checkpoints.save(2, {"x": jnp.zeros(8)}, {"n": 2})
    assert checkpoints.steps() == [1, 2]
    assert not any("tmp" in p.name for p in tmp_path.iterdir())
    checkpoints.close()


@pytest.mark.parametrize(
    ("change", "name"),
    [({"vocab_size": 128}, "model.embed.value"), ({"tie_embeddings": True}, "model.unembed.value")],
)
def test_a_state_of_another_model_is_refused(
    state: State, tmp_path: Path, change: dict[str, Any], name: str
) -> None:
    checkpoints = TrainCheckpoints(tmp_path, keep=1)
    checkpoints.save(1, state, {})
    other = abstract(make_mesh((1, 1, 1)), dataclasses.replace(CFG, **change))
    with raises("checkpoint_mismatch", f"{tmp_path}/1", name):
        checkpoints.restore(1, other)
    checkpoints.close()


READ_BOTH = """
import os, resource, sys
import jax, jax.numpy as jnp
from etils import epath
from ste_jax import logs
from ste_jax.checkpoint.orbax import TrainCheckpoints, load_parameter, on_mesh
from ste_jax.errors import SteError
from ste_jax.sharding import make_mesh

steps, parameters, files = sys.argv[1:]
target = on_mesh({"x": jax.ShapeDtypeStruct((300, 300), jnp.float32)}, make_mesh((1, 1, 1)))
checkpoints = TrainCheckpoints(steps, keep=1)
folder = epath.Path(parameters)
if files == "none":
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, used))
for read in (lambda: checkpoints.restore(1, target), lambda: load_parameter(folder, "x", target["x"])):
    try:
        read()
    except SteError as error:
        print(error.code, error)
"""


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A folder with a step and with a parameter."""
    array = {"x": jax.random.normal(jax.random.key(0), (300, 300))}
    checkpoints = TrainCheckpoints(tmp_path / "steps", keep=1)
    checkpoints.save(1, array, {})
    checkpoints.close()
    save_parameter(epath.Path(tmp_path / "parameters"), "x", array["x"])
    return tmp_path


def read_both(folder: Path, files: str = "any") -> list[str]:
    """Reads the step and the parameter in another process: in this one TensorStore holds the bytes in memory.

    Returns:
      The code and the text of both errors.
    """
    command = [sys.executable, "-c", READ_BOTH, str(folder / "steps"), str(folder / "parameters"), files]
    done = subprocess.run(command, capture_output=True, timeout=120, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def randomize(file: Path) -> None:
    file.write_bytes(np.random.default_rng(0).bytes(file.stat().st_size))


@pytest.mark.parametrize("damage", [truncate, randomize, Path.unlink])
def test_damaged_files_are_refused(both: Path, damage: Callable[[Path], None]) -> None:
    for file in both.rglob("d/*"):
        damage(file)
    step, parameters = read_both(both)
    assert step.startswith(f"checkpoint_damaged {both}/steps/1: ")
    assert parameters.startswith(f"model_damaged {both}/parameters: ")


def unreadable(file: Path) -> None:
    """Makes the system calls that open a file fail, with another error than that it does not exist."""
    file.unlink()
    file.symlink_to(file.name)


def test_files_that_cannot_be_read_now_are_not_called_damaged(both: Path) -> None:
    found = read_both(both, files="none")
    for file in both.rglob("d/*"):
        unreadable(file)
    found += read_both(both)
    for error, folder in zip(found, ("steps/1", "parameters") * 2, strict=True):
        assert error.startswith(f"read_failed {both}/{folder}: ")
        assert "delete this step" not in error
        assert "copy the whole" not in error


def test_the_free_space_that_a_file_system_reports_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    checkpoints = TrainCheckpoints(tmp_path, keep=1)
    checkpoints.save(1, {"x": jnp.ones(300)}, {})
    assert checkpoints.steps() == [1]
    checkpoints.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount).returncode:
        pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_the_earlier_step(small_disk: Path) -> None:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.normal(size=shape).astype(np.float32))

    checkpoints = TrainCheckpoints(small_disk / "steps", keep=2)
    checkpoints.save(1, {"x": normal(300, 300)}, {"n": 1})
    with pytest.raises(OSError, match="steps") as caught:
        checkpoints.save(2, {str(i): normal(500, 500) for i in range(5)}, {})
    assert caught.value.errno == errno.ENOSPC
    assert checkpoints.steps() == [1]
    checkpoints.save(2, {"x": jnp.ones((300, 300))}, {"n": 2})
    assert checkpoints.steps() == [1, 2]
    checkpoints.close()
    with pytest.raises(OSError, match="parameters") as caught:
        save_parameter(epath.Path(small_disk / "parameters"), "x", normal(1000, 1000))
    assert caught.value.errno == errno.ENOSPC


def test_orbax_only_speaks_of_errors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    logger = logging.getLogger("absl")
    assert not logger.filters  # importing the package changes no logger
    logger.addFilter(logs.is_shown)
    request.addfinalizer(lambda: logger.removeFilter(logs.is_shown))
    with caplog.at_level(logging.DEBUG, logger="absl"):
        checkpoints = TrainCheckpoints(tmp_path, keep=1)
        checkpoints.save(1, {"x": jnp.ones(3)}, {})
        checkpoints.close()
        assert not [record for record in caplog.records if record.name == "absl"]
        logging.getLogger("absl").warning("of somebody else")
    assert "of somebody else" in caplog.messages


@pytest.mark.parametrize("name", ["run[1]", "a*b", "what?", "[!a]", "**", "{a,b}", "a\\b"])
def test_a_path_may_hold_the_characters_of_a_pattern(tmp_path: Path, name: str) -> None:
    folder = epath.Path(tmp_path / name / "inner")
    array = jax.device_put(np.arange(6, dtype=np.float32))
    save_parameter(folder, "w", array)
    target = jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)
    assert parameter_shapes(folder)["w"].shape == (6,)
    assert np.array_equal(load_parameter(folder, "w", target), array)
    checkpoints = TrainCheckpoints(folder / "steps", keep=1)
    for step in (1, 2):
        checkpoints.save(step, {"w": array}, {"step": step})
    state, meta = checkpoints.restore(2, {"w": target})
    assert (checkpoints.steps(), meta) == ([2], {"step": 2})
    assert np.array_equal(state["w"], array)
    checkpoints.close()
    # As an array that was saved elsewhere, and with nothing left next to it.
    save_parameter(epath.Path(tmp_path / "plain"), "w", array)
    ours = {file.name for file in Path(folder / "w").iterdir()}
    assert ours == {file.name for file in (tmp_path / "plain" / "w").iterdir()}
