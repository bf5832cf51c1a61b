"""Run configurations: a ConfigDict of `configs/` becomes frozen dataclasses once, with every check, before
anything loads.
"""

import dataclasses
import functools
import math
from typing import Any, Literal, TypeVar

import dacite

from ste_jax.config_field import JUDGING, STAGES, config_field, values_affecting
from ste_jax.decode.engine import DecodeSettings
from ste_jax.decode.protocol import Sampling
from ste_jax.errors import SteError
from ste_jax.instructions.filters import FilterSettings
from ste_jax.instructions.labels import CATEGORIES
from ste_jax.pairs.construction import PairChecks
from ste_jax.sharding import is_mesh
from ste_jax.training.settings import TrainSettings

T = TypeVar("T")
PairMode = Literal[
    "modified", "modified_one_call", "degraded", "high_temperature", "nearest", "random", "truncated"
]
_Check = tuple[bool, str]

# Version of the form of stage fingerprints. Version 1 has no number, and lacks the section `decode`.
FINGERPRINT_SCHEMA = 2

# Dotted names of fields that were renamed, with their new names. A row of `train` holds for `prefer` too.
RENAMED: dict[str, str] = {
    "pairs.hotter": "pairs.high_temperature",
}

# (dotted name of the field, old value) -> new value.
RENAMED_VALUES: dict[tuple[str, str], str] = {
    ("pairs.mode", "hotter"): "high_temperature",
    ("pairs.mode", "shortened"): "truncated",
    ("pairs.mode", "worse"): "degraded",
}


_select = functools.partial(config_field, affects=("select",))
_pairs = functools.partial(config_field, affects=("pairs",))


def _require(*checks: _Check) -> None:
    """Raises the text of the first (good, text) that is not good."""
    for good, text in checks:
        if not good:
            raise ValueError(f"config: {text}")


def _at_least_one(section: Any, name: str, *fields: str) -> list[_Check]:
    """Returns the checks that these fields of a section are 1 or more."""
    values = {field: getattr(section, field) for field in fields}
    return [(n >= 1, f"{name}.{field} must be 1 or more, not {n}") for field, n in values.items()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Which instructions are used.

    Attributes:
      pool: instructions that the model labels, drawn at random from those that pass the filters (0: all).
      categories: that the model chooses from; (): it labels nothing, and all instructions are alike.
      size: instructions that are chosen.
      quotas: weight by category; empty: balanced (see `instructions.sampler`).
      min_complexity: leaves out what the model finds easier; 0: no bound.
      prefer_complex: inside a category, higher complexity first.
      max_tokens: longer instructions are left out.
      max_new_tokens: of a label.
    """

    pool: int = _select(0)
    size: int = _select()
    categories: tuple[str, ...] = _select(CATEGORIES)
    quotas: dict[str, float] = _select(default_factory=dict)
    min_complexity: int = _select(0)
    prefer_complex: bool = _select(True)
    max_tokens: int = _select(1024)
    max_new_tokens: int = _select(48)
    filters: FilterSettings = _select(FilterSettings())

    def __post_init__(self):
        unknown = sorted(set(self.quotas) - {*self.categories, "unlabelled"})
        _require(
            *_at_least_one(self, "select", "size", "max_tokens", "max_new_tokens"),
            (self.pool >= 0, f"select.pool must be 0 or more, not {self.pool}"),
            (
                self.pool == 0 or self.pool >= self.size,
                f"select.pool ({self.pool}) is smaller than select.size ({self.size})",
            ),
            (0 <= self.min_complexity <= 10, "select.min_complexity must be from 0 to 10"),
            (
                all(0.0 <= weight < math.inf for weight in self.quotas.values()),
                "select.quotas must be weights of 0 or more",
            ),
            (not unknown, f"select.quotas names categories that select.categories has not: {unknown}"),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """How response pairs are made.

    Attributes:
      mode: how the worse response y_l is made; several modes make one pair each per instruction.
        "modified": an answer to a modified instruction x', in two calls. "modified_one_call": the same in one
        call, as in the paper. "degraded": a deliberately worse answer to x, the ablation of the paper.
        "high_temperature": one more answer to x, sampled with `high_temperature`. Without further calls:
        "nearest" and "random": the answer to another instruction, the most similar one or any; "truncated":
        the beginning of the better response.
      sampling: sampling of the better response y_w and of all other calls but those of "high_temperature".
      high_temperature: sampling of y_l in that mode.
      max_response_tokens: of each response.
      max_modified_tokens: of x'.
      validation: pairs held out for the choice of checkpoints.
      test: pairs held out for the evaluation of every model.
    """

    mode: PairMode | tuple[PairMode, ...] = _pairs("modified")
    max_response_tokens: int = _pairs(1024)
    max_modified_tokens: int = _pairs(256)
    sampling: Sampling = _pairs(Sampling())
    high_temperature: Sampling = _pairs(
        Sampling(temperature=1.0, top_p=1.0), used=lambda section: "high_temperature" in section.modes
    )
    checks: PairChecks = _pairs(PairChecks())
    validation: int = config_field(affects=("annotate", "train", "prefer"), by_content=True)
    test: int = config_field(affects=JUDGING, by_content=True)

    def __post_init__(self):
        _require(
            (
                0 < len(self.modes) == len(set(self.modes)),
                f"pairs.mode must name one mode, or several different ones, not {self.mode}",
            ),
            *_at_least_one(self, "pairs", "max_response_tokens", "max_modified_tokens"),
            (self.test >= 1, "pairs.test must be 1 or more: every model is evaluated on them"),
            (self.validation >= 0, "pairs.validation must be 0 or more"),
        )

    @property
    def modes(self) -> tuple[PairMode, ...]:
        """The modes of `mode`, one or several."""
        return (self.mode,) if isinstance(self.mode, str) else self.mode


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnotateConfig:
    """How judgments are sampled.

    Attributes:
      samples: judgments of each pair and order, at most.
      stop_when_correct: ends an example after the wave in which it has so many correct judgments; 0: all are
        sampled.
      max_new_tokens: of a judgment, in annotation and in evaluation. 0, with `force_verdict`: the verdict
        alone, without any reasoning.
      force_verdict: appends the verdict's opening to a judgment that ended without one, and draws the
        verdict.
      max_per_example: correct judgments that are kept of a pair in one order.
      both_orders: leaves out pairs that were judged correctly in one order only.
    """

    samples: int = config_field(15, affects=("annotate",))
    stop_when_correct: int = config_field(0, affects=("annotate",))
    max_new_tokens: int = config_field(4096, affects=JUDGING)
    sampling: Sampling = config_field(Sampling(), affects=("annotate",))
    force_verdict: bool = config_field(False, affects=JUDGING)
    max_per_example: int = config_field(1, affects=("train", "prefer"))
    both_orders: bool = config_field(False, affects=("train", "prefer"))

    def __post_init__(self):
        _require(
            (self.samples >= 1, "annotate.samples must be 1 or more"),
            (
                0 <= self.stop_when_correct <= self.samples,
                f"annotate.stop_when_correct must be from 0 to annotate.samples ({self.samples})",
            ),
            (
                self.max_new_tokens >= (0 if self.force_verdict else 1),
                f"annotate.max_new_tokens must be 1 or more, or 0 with force_verdict, not "
                f"{self.max_new_tokens}",
            ),
            (self.max_per_example >= 1, "annotate.max_per_example must be 1 or more"),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How models are evaluated: one greedy judgment of each pair and order, and a majority vote.

    Attributes:
      votes: samples of the majority vote; 0: no vote.
      sampling: of the vote.
    """

    votes: int = config_field(0, affects=("votes",))
    sampling: Sampling = config_field(Sampling(), affects=("votes",))

    def __post_init__(self):
        _require((self.votes >= 0, "evaluate.votes must be 0 or more"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run.

    Attributes:
      name: for people.
      seed: of every random draw.
      iterations: rounds of annotation and training.
      model: the seed: GGUF file, Hugging Face folder or hub name, or a model folder of another run.
      instructions: a source for `data.sources.read_instructions`.
      labelled_pairs: a file of pairs with labels, half of which choose checkpoints in the place of
        validation pairs and
        half of which every model is evaluated on besides the test pairs; "": none.
      judge_prompt: a built-in prompt or a template file (see `judging.prompts`).
      rubric: what the judge is told to look at; "": the prompt's own words.
      train_from: each iteration starts from the "seed" (the paper) or from the "last" model.
      model_dtype: of the parameters that an iteration leaves on disk; "": `decode.dtype`, which is what they
        were chosen in.
      mesh: sizes of the mesh axes data, fsdp and tensor; -1: the devices that are left.
      train_mesh: the same for training, over the same devices; (): as `mesh`. Decoding wants as much `tensor`
        as there are key/value heads, training as much `fsdp` as there are rows.
      prefer: of preference training, which goes on from the fine-tuned model; None: there is none (see
        `read_config`).
    """

    name: str = config_field(affects=())
    seed: int = config_field(0, affects=STAGES)
    iterations: int = config_field(5, affects=())
    model: str = config_field(affects=STAGES, by_content=True)
    instructions: str = config_field(affects=("select",), by_content=True)
    labelled_pairs: str = config_field("", affects=JUDGING, by_content=True)
    judge_prompt: str = config_field("standard", affects=JUDGING, by_content=True)
    rubric: str = config_field("", affects=JUDGING, by_content=True)
    train_from: Literal["seed", "last"] = config_field("seed", affects=("train",), by_content=True)
    model_dtype: Literal["", "float32", "bfloat16"] = config_field("", affects=("train", "prefer"))
    mesh: tuple[int, int, int] = config_field((1, -1, 1), affects=())
    train_mesh: tuple[int, ...] = config_field((), affects=())
    select: SelectConfig = config_field(affects=("select",))
    pairs: PairsConfig = config_field(affects=("pairs", *JUDGING))
    annotate: AnnotateConfig = config_field(affects=JUDGING)
    train: TrainSettings = config_field(affects=("train",))
    prefer: TrainSettings | None = config_field(None, affects=("prefer",))
    evaluate: EvaluateConfig = config_field(EvaluateConfig(), affects=("votes",))
    decode: DecodeSettings = config_field(DecodeSettings(), affects=STAGES)

    def __post_init__(self):
        validated = self.pairs.validation > 0 or self.labelled_pairs != ""
        _require(
            (self.iterations >= 1, f"iterations must be 1 or more, not {self.iterations}"),
            (self.model != "", "model must name a model"),
            (self.instructions != "", "instructions must name a source"),
            (
                is_mesh(self.mesh),
                f"mesh must hold sizes of 1 or more, at most one of them -1, not {self.mesh}",
            ),
            (
                self.train_mesh == () or is_mesh(self.train_mesh),
                f"train_mesh must hold three sizes as mesh does, or nothing, not {self.train_mesh}",
            ),
            (
                self.held_out < self.select.size * len(self.pairs.modes),
                f"select.size ({self.select.size}) leaves no pair to train on beside {self.held_out} "
                f"held-out ones",
            ),
            (
                self.train.evaluate_every == 0 or validated,
                "train.evaluate_every wants pairs.validation or labelled_pairs to choose checkpoints by",
            ),
            (
                self.train.patience == 0 or validated,
                "train.patience wants pairs.validation or labelled_pairs to be measured by",
            ),
            (
                self.prefer is None or (self.train.method, self.prefer.method) == ("sft", "dpo"),
                "prefer goes on by method 'dpo' from what method 'sft' made; for preference training alone "
                "set train.method to 'dpo' and prefer.epochs to 0",
            ),
        )
        shards = math.prod(size for size in (self.train_mesh or self.mesh)[:2] if size > 0)
        for name, settings in self.trainings.items():
            if settings.micro_rows % shards:
                raise ValueError(
                    f"config: {name}.micro_rows ({settings.micro_rows}) is not a multiple of mesh data x "
                    f"fsdp ({shards})"
                )

    @property
    def held_out(self) -> int:
        """Made pairs that are kept from training, at least: labelled ones take the validation's place."""
        return self.pairs.test + (0 if self.labelled_pairs else self.pairs.validation)

    @property
    def trainings(self) -> dict[str, TrainSettings]:
        """The trainings of an iteration in their order, by the name of their stage."""
        return {"train": self.train} | ({"prefer": self.prefer} if self.prefer else {})


def fingerprint_of(config: RunConfig, stage: str) -> dict[str, Any]:
    """Returns the configuration values that the records of a stage depend on, nested by section.

    A stage is stale if they differ from those that it was made with. Every field states what it affects
    where it is declared (see `config_field`); inputs that are hashed by content are not among the values.
    """
    assert stage in STAGES, stage
    return values_affecting(config, stage)


def read_config(value: dict[str, Any]) -> RunConfig:
    """Returns the checked configuration of a nested dict (`ConfigDict.to_dict()`).

    The section `prefer` holds what differs from `train`; without it, or with `epochs` 0, there is no
    preference training. Its rows are twice as long unless it says otherwise: an example is two judgments.

    Raises:
      SteError: "config_renamed" for a field or value under its old name.
      ValueError: an unknown, missing or ill-typed field, or a combination that cannot work; the text names
        it.
    """
    given = _with_tuples(value)
    check_renamed(given)
    own = given.pop("prefer", None) or {}
    config = _read(RunConfig, given)
    if not own or own.get("epochs") == 0:
        return config
    same = dataclasses.asdict(config.train) | {"method": "dpo", "row_length": 2 * config.train.row_length}
    try:
        return dataclasses.replace(config, prefer=_read(TrainSettings, same | own))
    except ValueError as error:
        raise ValueError(f"{error} (in the section prefer)") from error


def check_renamed(value: dict[str, Any], prefix: str = "") -> None:
    """Refuses fields and values that were renamed.

    Args:
      value: nested dict of (a part of) a configuration.
      prefix: dotted name of that part, ending in a dot; "" for the whole configuration.

    Raises:
      SteError: "config_renamed"; the text names the new field or value.
    """
    for field, inner in value.items():
        name = prefix + field
        if new := renamed_field(name):
            raise SteError("config_renamed", f"config: {name} is now {new}")
        for old in inner if isinstance(inner, tuple) else (inner,):
            if isinstance(old, str) and (new := RENAMED_VALUES.get((_as_train(name), old))):
                raise SteError("config_renamed", f"config: the value {old!r} of {name} is now {new!r}")
        if isinstance(inner, dict):
            check_renamed(inner, f"{name}.")


def renamed_field(name: str) -> str | None:
    """Returns the new dotted name of a field under its old one, or None if it was not renamed."""
    section = name.partition(".")[0]
    new = RENAMED.get(name) or RENAMED.get(_as_train(name))
    return new and (f"{section}{new.removeprefix('train')}" if section == "prefer" else new)


def _as_train(name: str) -> str:
    """Returns the name of a field of `prefer` as a field of `train`: the sections have the same fields."""
    return f"train{name.removeprefix('prefer')}" if name.startswith("prefer.") else name


def _read(kind: type[T], value: dict[str, Any]) -> T:
    try:
        return dacite.from_dict(kind, value, dacite.Config(strict=True, type_hooks={float: _number}))
    except dacite.UnexpectedDataError as error:
        raise ValueError(f"config: {error}; see ste_jax/config.py for the fields that there are") from error
    except dacite.DaciteError as error:
        raise ValueError(f"config: {error}") from error


def _number(value: Any) -> Any:
    """Lets an int stand where a float belongs; everything else is left for the type check."""
    return float(value) if type(value) is int else value


def _with_tuples(value: Any) -> Any:
    """Lets a list stand where a tuple belongs; a string, which would fall into letters, is left alone."""
    if isinstance(value, dict):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value
