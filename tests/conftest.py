"""Fixtures and strictness of all tests: 8 fake CPU devices, strict dtypes and ranks, the real small model."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"

import jax
import numpy as np
import pytest
from etils import epath
from filelock import FileLock

from ste_jax.checkpoint.card import ModelCard
from ste_jax.checkpoint.folder import save_model
from ste_jax.config import RunConfig, read_config
from ste_jax.models.llama import Llama, LlamaConfig, parameter_table
from ste_jax.sharding import DECODE, make_mesh
from ste_jax.stages.context import Context
from ste_jax.text.tokenizer import load_tokenizer

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Files of tests that take a minute and more, longest first.
_LONGEST = (
    *("test_pipeline.py", "test_quickstart.py", "test_choices.py", "test_plan_command.py", "test_prefer.py"),
    *("test_step.py", "test_judge_compare.py", "test_cli.py", "test_judge_files.py", "test_parity.py"),
    *("test_annotating_hosts.py", "test_decode_plan.py", "test_preemption.py", "test_bench_sft.py"),
)
_PAPER_SMALL = Path(__file__).parents[1] / "configs" / "paper_small.py"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Compiles without LLVM's optimizations, which take longer than the small programs of most tests run."""
    jax.config.update("jax_disable_most_optimizations", item.get_closest_marker("optimized") is None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take longest first, so that no worker waits for another one at the end."""
    rank = {name: index for index, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


class Shared:
    """Folders that all workers of a test run share.

    Attributes:
      folder: their parent.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """Returns a folder that the first worker makes, and the others wait for."""
        folder, made = self.folder / name, self.folder / f"{name}.made"
        with FileLock(self.folder / f"{name}.lock"):
            if not made.exists():
                folder.mkdir()
                make(folder)
                made.touch()
        return folder


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Folders of all workers of the run."""
    base = tmp_path_factory.getbasetemp()
    return Shared(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(scope="session")
def compiled(shared: Shared) -> Path:
    """Folder of compiled programs, for all tests of a run and the processes that they start."""
    return shared.folder / "compiled"


@pytest.fixture(scope="session", autouse=True)
def _compile_once(compiled: Path):
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture
def one_device():
    """Sets the mesh of a single device."""
    with jax.set_mesh(make_mesh((1, 1, 1), jax.devices()[:1])):
        yield


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, which scripts/test.sh fetches and names in STE_TEST_MODEL."""
    path = os.environ.get("STE_TEST_MODEL")
    if not path or not Path(path).is_file():
        pytest.fail("set STE_TEST_MODEL to the SmolLM2-135M-Instruct GGUF file (scripts/test.sh does it)")
    return Path(path)


# ---- whole runs: a random model with the real tokenizer, and `ste` in processes of its own ----

_TINY_CONFIG = """
from ml_collections import ConfigDict


def get_config(arg=""):
    c = ConfigDict()
    c.name, c.seed, c.iterations, c.judge_prompt, c.mesh = "tiny", 0, 2, "short", (1, 1, 1)
    c.train_mesh = (1, 1, 1)
    c.model, c.instructions, c.labelled_pairs = {model!r}, {instructions!r}, ""
    c.select = ConfigDict({{"size": 12, "max_new_tokens": 4, "max_tokens": 64}})
    c.select.filters = ConfigDict({{"languages": (), "personal_data": "keep"}})
    c.pairs = ConfigDict({{"mode": "degraded", "max_response_tokens": 8, "validation": 2, "test": 3}})
    c.pairs.sampling = ConfigDict({{"temperature": 1.0, "top_p": 1.0}})
    c.pairs.checks = ConfigDict(
        {{"max_response_similarity": 1.0, "max_length_ratio": 1000.0, "drop_refusals": False}}
    )
    c.annotate = ConfigDict({{"samples": 3, "max_new_tokens": 6, "force_verdict": True}})
    c.annotate.sampling = ConfigDict({{"temperature": 1.0, "top_p": 1.0}})
    c.train = ConfigDict({{"learning_rate": 1e-3, "warmup_steps": 1, "epochs": 2.0, "row_length": 640}})
    c.train.objective, c.train.lora_rank, c.train.batch_rows, c.train.micro_rows = "sft", 0, 2, 2
    c.train.evaluate_every, c.train.checkpoint_every = 2, 2
    c.prefer = ConfigDict({{"epochs": 0.0, "learning_rate": 5e-4}})
    c.evaluate = ConfigDict({{"votes": 0}})
    c.decode = ConfigDict({{"sequences": 12, "buckets": (640,), "suffix_chunk": 16, "samples_per_slot": 3}})
    return c
"""
_TOPICS = (
    *("bread", "bridges", "clouds", "clocks", "trees", "rivers", "maps", "ships", "bees", "stars", "music"),
    *("chess", "salt", "glass"),
)


@pytest.fixture(scope="session")
def tiny_model(smollm2_path: Path, shared: Shared) -> Path:
    """A model folder: a random Llama of two layers with the tokenizer of SmolLM2."""
    return shared.once("tiny", lambda folder: save_tiny_model(smollm2_path, folder / "model")) / "model"


def save_tiny_model(tokenizer_of: Path, folder: Path) -> None:
    """Writes a model of two layers with random weights and the tokenizer of another model."""
    tokenizer = load_tokenizer(tokenizer_of)
    cfg = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        context_length=1024,
        tie_embeddings=True,
    )
    random = np.random.default_rng(0)
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    arrays = {}
    for name, parameter in parameter_table(cfg).items():
        value = random.normal(size=parameter.shape) * 0.2 if parameter.std else np.ones(parameter.shape)
        spec = jax.NamedSharding(mesh, DECODE.spec(*parameter.axes))
        arrays[name] = jax.device_put(value.astype(np.float32), spec)
    card = ModelCard("tiny", cfg, tokenizer.fingerprint(), tokenizer.stop_ids)
    save_model(folder, Llama(cfg, DECODE, "float32", arrays), card, tokenizer)


class Ste:
    """Starts the command `ste` on a tiny configuration, each time as a process of its own.

    Attributes:
      config: the configuration file.
    """

    def __init__(self, config: Path, cache: Path):
        self.config = config
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("XLA_")},
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            # As in the process of most tests: bits are compared across processes.
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "COLUMNS": "160",
        }

    def start(
        self, *arguments: str, more: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Starts `ste` with these arguments and nothing else; `more` goes into its environment."""
        command = [sys.executable, "-c", "from ste_jax.cli import main; main()", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env={**self._environment, **(more or {})},
            start_new_session=True,
            **options,
        )

    def begin(self, command: str, workdir: Path, *flags: str, **options: Any) -> subprocess.Popen[str]:
        """Starts `ste COMMAND` on the tiny configuration."""
        return self.start(command, f"--config={self.config}", f"--workdir={workdir}", *flags, **options)

    def run(self, command: str, workdir: Path, *flags: str, **options: Any) -> "Ended":
        """Runs `ste COMMAND` to its end."""
        return ended(self.begin(command, workdir, *flags, **options))

    def run_bare(self, *arguments: str) -> "Ended":
        """Runs `ste` with these arguments and nothing else to its end."""
        return ended(self.start(*arguments))


class Ended(NamedTuple):
    """Exit of a process."""

    code: int
    out: str
    err: str


def ended(process: subprocess.Popen[str]) -> Ended:
    """Waits for a process."""
    out, err = process.communicate(timeout=300)
    return Ended(process.returncode, out, err)


@pytest.fixture(scope="session")
def ste(tiny_model: Path, shared: Shared, compiled: Path) -> Ste:
    """The command `ste` on a tiny configuration of two iterations."""

    def make(folder: Path) -> None:
        instructions = folder / "instructions.jsonl"
        rows = [
            {"id": f"q{i:02d}", "text": f"Explain to a child how {topic} came to be."}
            for i, topic in enumerate(_TOPICS)
        ]
        instructions.write_text("".join(json.dumps(row) + "\n" for row in rows))
        text = _TINY_CONFIG.format(model=str(tiny_model), instructions=str(instructions))
        (folder / "tiny.py").write_text(text)

    return Ste(shared.once("ste", make) / "tiny.py", compiled)


@pytest.fixture(scope="session")
def finished(ste: Ste, shared: Shared) -> Path:
    """The workdir of an uninterrupted run. Tests that change something take a copy."""

    def make(folder: Path) -> None:
        run = ste.run("run", folder / "run")
        assert run.code == 0, run.err

    return shared.once("finished", make) / "run"


@pytest.fixture(scope="session")
def make_config() -> Callable[..., RunConfig]:
    """Reads the small paper_small with other values; keyword arguments replace fields, or update sections."""

    def make(**changes: Any) -> RunConfig:
        value = runpy.run_path(str(_PAPER_SMALL))["get_config"]("runlocal").to_dict()
        for name, new in changes.items():
            value[name] = value[name] | new if isinstance(new, dict) else new
        return read_config(value)

    return make


@pytest.fixture(scope="session")
def make_context(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, make_config: Callable[..., RunConfig]
) -> Callable[..., Context]:
    """Opens runs of the tiny model, each in a workdir of its own."""

    def make(**changes: Any) -> Context:
        workdir = tmp_path_factory.mktemp("run")
        return Context(make_config(model=str(tiny_model), **changes), epath.Path(workdir))

    return make
