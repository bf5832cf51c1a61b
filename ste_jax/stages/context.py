"""What every stage of a run has at hand: configuration, folders, models, and the engine that was opened
last.
"""

from functools import cached_property
from typing import Any

import jax
import numpy as np
from etils import epath

from ste_jax.checkpoint.source import ModelSource, open_model
from ste_jax.config import FINGERPRINT_SCHEMA, RunConfig, fingerprint_of
from ste_jax.decode.engine import Engine
from ste_jax.judging.judge import JudgeSettings, check_prompt
from ste_jax.judging.prompts import JudgePrompt, load_prompt
from ste_jax.models.llama import Llama
from ste_jax.randomness import sample_keys
from ste_jax.sharding import DECODE, decode_mesh, make_mesh
from ste_jax.storage.success import read_success


class Context:
    """A run in its workdir."""

    def __init__(self, config: RunConfig, workdir: epath.Path):
        self.config = config
        self.workdir = workdir
        self._engine: tuple[str, Engine] | None = None

    @cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The mesh that models are sampled from: of many hosts each has its own."""
        return decode_mesh(self.config.mesh)

    @cached_property
    def train_mesh(self) -> jax.sharding.Mesh:
        """The mesh of training, over all devices of all hosts."""
        return make_mesh(self.config.train_mesh or self.config.mesh)

    @cached_property
    def prompt(self) -> JudgePrompt:
        """The judge prompt, the same for sampling, training and evaluation."""
        return load_prompt(self.config.judge_prompt, self.config.rubric)

    @property
    def judging(self) -> JudgeSettings:
        """How judgments are made, the same in every stage."""
        annotate = self.config.annotate
        return JudgeSettings(self.prompt, annotate.max_new_tokens, annotate.force_verdict, self.config.seed)

    @property
    def selection(self) -> dict[str, Any]:
        """Keyword arguments of `select_for_training`, but for the seed."""
        annotate = self.config.annotate
        return {"max_per_example": annotate.max_per_example, "both_orders": annotate.both_orders}

    def iteration(self, number: int) -> epath.Path:
        """The folder of an iteration; 0 is the seed's."""
        return self.workdir / f"iteration_{number}"

    @cached_property
    def seed_model(self) -> ModelSource:
        """The model that the run starts from."""
        return self.opened(self.config.model)

    def model(self, iteration: int) -> ModelSource:
        """The model that an iteration made; 0 is the seed.

        Raises:
          ValueError: there is none yet, its last training is not finished, or it was trained with another
            judge prompt or parser.
        """
        if iteration == 0:
            return self.seed_model
        folder, stage = self.iteration(iteration), list(self.config.trainings)[-1]
        if not (read_success(folder / stage) and (folder / "model").exists()):
            raise ValueError(
                f"{folder / 'model'} is missing or not finished; run `ste {stage} --iteration={iteration}` "
                "first"
            )
        return self.opened(folder / "model")

    def opened(self, path: epath.Path | str) -> ModelSource:
        """The model in a file or folder, which suits the judge prompt."""
        source = open_model(str(path))
        check_prompt(source, self.prompt)
        return source

    def engine(self, source: ModelSource) -> Engine:
        """Returns the engine of a model; the one opened before is let go."""
        digest = source.digest()
        if self._engine is None or self._engine[0] != digest:
            self._engine = None
            dtype = self.config.decode.dtype
            model = source.load(DECODE, self.mesh, param_dtype=dtype, dtype=dtype)
            self._engine = digest, self.engine_of(model, source)
        return self._engine[1]

    def engine_of(self, model: Llama, source: ModelSource) -> Engine:
        """Returns an engine over a loaded model that shares the tokenizer of `source`."""
        return Engine(model, self.mesh, self.config.decode, source.tokenizer.stop_ids)

    def release(self) -> None:
        """Lets the engine and its weights go: training needs the memory."""
        self._engine = None

    def keys(self, stage: str, record: str, samples: int) -> np.ndarray:
        """Returns the keys of the samples of a record: uint32 [samples, 2]."""
        return sample_keys(self.config.seed, stage, record, samples)

    def fingerprint(self, stage: str, **inputs: str) -> dict:
        """Returns what the records of a stage are made from.

        Args:
          stage: name from `config_field.STAGES`.
          **inputs: hash of each input, by its name.
        """
        values = fingerprint_of(self.config, stage)
        return {"schema_version": FINGERPRINT_SCHEMA, "stage": stage, "config": values, "inputs": inputs}
