"""State that the stages of a run share: configuration, folders, models, and the current engine."""

import logging
import math
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ste_jax.checkpoint.source import ModelSource, open_model
from ste_jax.config import FINGERPRINT_SCHEMA, RunConfig, fingerprint_of
from ste_jax.data.comparisons import read_labelled_pairs
from ste_jax.data.named_columns import BY_NAME, NamedColumns
from ste_jax.data.prompts import read_prompts
from ste_jax.data.sources import InstructionColumns
from ste_jax.decode.engine import Engine
from ste_jax.errors import SteError
from ste_jax.extras import require
from ste_jax.judging.prompts import JudgePrompt, load_prompt
from ste_jax.judging.protocol import JudgeSettings, check_prompt
from ste_jax.logs import log_mesh
from ste_jax.models.llama import Llama, check_divisible, parameter_table
from ste_jax.pairs.certain import BY_SIMILARITY
from ste_jax.pairs.verified import VERIFIED, read_references
from ste_jax.randomness import sample_keys
from ste_jax.sharding import DECODE, MESH_AXES, TRAIN, decode_mesh, make_mesh
from ste_jax.storage.files import digest
from ste_jax.storage.success import read_success
from ste_jax.text.template import ChatSettings

# Kinds of pairs that are not made from the instructions of a run.
WITHOUT_INSTRUCTION = frozenset(("arithmetic", *VERIFIED))
_log = logging.getLogger(__name__)


class Context:
    """A run: its configuration and its workdir.

    Args:
      config: configuration of the run.
      workdir: folder of the run.
    """

    def __init__(self, config: RunConfig, workdir: epath.Path):
        self.config = config
        self.workdir = workdir
        self._engine: tuple[str, Engine] | None = None

    @cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """Mesh for decoding. With several processes, each replica group has its own."""
        mesh = decode_mesh(self.config.mesh)
        log_mesh("decode", mesh)
        return mesh

    @cached_property
    def train_mesh(self) -> jax.sharding.Mesh:
        """Mesh for training, over the devices of all processes."""
        mesh = make_mesh(self.config.train_mesh or self.config.mesh)
        log_mesh("train", mesh)
        return mesh

    @cached_property
    def prompt(self) -> JudgePrompt:
        """Judge prompt of annotation, training and evaluation."""
        return load_prompt(self.config.judge_prompt, self.config.rubric)

    @property
    def named(self) -> NamedColumns:
        """Columns of the labelled pairs that the judge prompt shows."""
        # Without such pairs the prompt is not opened, whose file may be gone when a report is made.
        return NamedColumns(shown=self.prompt.columns) if self.config.labelled_pairs else BY_NAME

    @property
    def instruction_columns(self) -> InstructionColumns:
        """Columns of the instructions that the configuration or the judge prompt names."""
        return InstructionColumns(
            prompt=self.config.instructions_column,
            shown=self.prompt.columns,
            better_from=self.config.pairs.better_from,
            with_reference=self.prompt.needs_reference,
        )

    @property
    def judging(self) -> JudgeSettings:
        """Settings of judging, the same in every stage."""
        annotate = self.config.annotate
        return JudgeSettings(self.prompt, annotate.max_new_tokens, annotate.force_verdict, self.config.seed)

    @property
    def selection(self) -> dict[str, Any]:
        """Keyword arguments of `select_for_training`, but for the seed."""
        annotate = self.config.annotate
        return {"max_per_example": annotate.max_per_example, "both_orders": annotate.both_orders}

    def iteration(self, number: int) -> epath.Path:
        """Returns the folder of an iteration; 0 is the seed model."""
        return self.workdir / f"iteration_{number}"

    @cached_property
    def seed_model(self) -> ModelSource:
        """Model that the run starts from."""
        return self.opened(self.config.model, self.config.chat)

    def model(self, iteration: int) -> ModelSource:
        """Returns the model that an iteration trained; 0 is the seed model.

        Raises:
          SteError: "stage_unfinished" if its last training is not finished; see also `opened`.
        """
        if iteration == 0:
            return self.seed_model
        folder, stage = self.iteration(iteration), list(self.config.trainings)[-1]
        if not (read_success(folder / stage) and (folder / "model").exists()):
            raise SteError(
                "stage_unfinished",
                f"{folder / 'model'} is missing or not finished; run `ste {stage} --iteration={iteration}` "
                "first",
            )
        return self.opened(folder / "model")

    def opened(self, path: epath.Path | str, chat: ChatSettings | None = None) -> ModelSource:
        """Opens a model and checks that it can be used with the configuration. Reads no weights.

        Args:
          path: File, folder or hub name.
          chat: What replaces its chat template; models of this run hold theirs.

        Raises:
          SteError: the model cannot be opened, it was trained with another judge prompt or parser, or the
            mesh axis `tensor` does not divide it ("mesh_invalid").
        """
        source = open_model(str(path), chat)
        check_prompt(source, self.prompt)
        for rules, sizes in ((DECODE, self.config.mesh), (TRAIN, self.config.train_mesh)):
            # An axis of -1 follows from the devices: it is checked when weights are loaded.
            known = {axis: max(1, size) for axis, size in zip(MESH_AXES, sizes, strict=False)}
            if known:
                check_divisible(source.architecture, rules, known)
        return source

    def check_files(self) -> None:
        """Reads the files, and finds the libraries, that are needed only in later stages.

        Raises:
          SteError: a file is missing or invalid ("extra_missing" for a library).
        """
        self._check_shown()
        for path in self.config.select.decontaminate:
            read_prompts(path)
        for mode, (_, path) in self.config.pairs.references.items():
            read_references(mode, path)
        filters = self.config.select.filters
        for is_used, modules in (
            (not BY_SIMILARITY.isdisjoint(self.config.pairs.modes), ("sklearn",)),
            (bool(filters.languages), ("lingua",)),
            (filters.personal_data != "keep", ("phonenumbers", "stdnum")),
        ):
            if is_used:
                require("select", *modules)

    def _check_shown(self) -> None:
        """Checks that the labelled pairs and the kinds of pairs have all that the judge prompt shows."""
        prompt, pairs = self.prompt, self.config.pairs
        if path := self.config.labelled_pairs:
            for pair in read_labelled_pairs(path, named=self.named).pairs:
                if prompt.needs_reference and pair.reference is None:
                    raise SteError(
                        "reference_missing", f"{path}, {pair.id}: the judge prompt shows {{reference}}"
                    )
        further = [*prompt.columns, *(["reference"] if prompt.needs_reference else [])]
        if further and (modes := sorted(WITHOUT_INSTRUCTION.intersection(pairs.modes))):
            raise SteError(
                "config_invalid",
                f"config: pairs.mode {modes[0]!r} has no {{{further[0]}}}, which the judge prompt shows: its "
                "pairs are not made from the instructions",
            )

    def engine(self, source: ModelSource) -> Engine:
        """Returns the engine of a model, and releases that of another one."""
        digest = source.digest()
        if self._engine is None or self._engine[0] != digest:
            self._engine = None
            dtype = self.config.decode.dtype
            model = source.load(DECODE, self.mesh, param_dtype=dtype, dtype=dtype)
            count = sum(math.prod(p.shape) for p in parameter_table(source.architecture).values())
            size = count * jnp.dtype(dtype).itemsize
            _log.info("loaded %s: %d parameters, %d bytes in %s", source.name, count, size, dtype)
            self._engine = digest, self.engine_of(model, source)
        return self._engine[1]

    def engine_of(self, model: Llama, source: ModelSource) -> Engine:
        """Returns an engine over a loaded model that shares the tokenizer of `source`."""
        return Engine(model, self.mesh, self.config.decode, source.tokenizer.stop_ids)

    def release(self) -> None:
        """Releases the engine and its weights, to free memory for training."""
        self._engine = None

    def keys(self, stage: str, record: str, samples: int) -> np.ndarray:
        """Returns the keys of the samples of a record: uint32 [samples, 2]."""
        return sample_keys(self.config.seed, stage, record, samples)

    def fingerprint(self, stage: str, **inputs: str) -> dict:
        """Returns the fingerprint of a stage: all that its records depend on.

        Args:
          stage: name from `config_field.STAGES`.
          **inputs: hash of each input, by its name.
        """
        values = fingerprint_of(self.config, stage)
        if self.config.chat_template:
            inputs["chat_template"] = digest(self.config.chat.read())
        return {"schema_version": FINGERPRINT_SCHEMA, "stage": stage, "config": values, "inputs": inputs}
