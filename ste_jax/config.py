"""Run configurations: converts a ConfigDict of `configs/` to frozen dataclasses, with all checks that need
neither files nor devices.
"""

import dataclasses
import functools
import math
import types
from typing import Any, Literal, TypeVar, Union, cast, get_origin

import dacite
from ml_collections import ConfigDict

from ste_jax.config_field import JUDGING, STAGES, config_field, type_text, values_affecting
from ste_jax.config_renames import check_renamed
from ste_jax.decode.protocol import Sampling
from ste_jax.decode.settings import DecodeSettings
from ste_jax.errors import SteError
from ste_jax.instructions.filters import FilterSettings
from ste_jax.instructions.labels import CATEGORIES
from ste_jax.pairs.construction import PairChecks
from ste_jax.records import Part
from ste_jax.sharding import is_mesh
from ste_jax.text.template import ChatSettings
from ste_jax.training.settings import TrainSettings

T = TypeVar("T")
PairMode = Literal[
    "modified",
    "modified_one_call",
    "degraded",
    "high_temperature",
    "nearest",
    "random",
    "truncated",
    "crossed",
    "random_crossed",
    "constraint",
    "handicapped",
    "advantaged",
    "padded",
    "cut_off",
    "garbled",
    "neutral",
    "composite",
    "arithmetic",
    "solutions",
    "code",
]
Modes = PairMode | tuple[PairMode, ...] | dict[PairMode, float]
_Check = tuple[bool, str]

# Version of the form of stage fingerprints. Version 1 has no number, and lacks the section `decode`.
FINGERPRINT_SCHEMA = 2

_select = functools.partial(config_field, affects=("select",))
_pairs = functools.partial(config_field, affects=("pairs",))


def _require(*checks: _Check) -> None:
    """Raises a `SteError` for the first check (is it good, message) that is not good."""
    for good, text in checks:
        if not good:
            raise SteError("config_invalid", f"config: {text}")


def _at_least_one(section: Any, name: str, *fields: str) -> list[_Check]:
    """Returns the checks that these fields of a section are 1 or more."""
    values = {field: getattr(section, field) for field in fields}
    return [(n >= 1, f"{name}.{field} must be 1 or more, not {n}") for field, n in values.items()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Selection of the instructions of a run.

    Attributes:
      pool: Number of instructions that the model labels, drawn at random from those that pass the filters.
        0: all of them.
      size: Number of instructions to select.
      categories: Categories offered to the labeler. Empty disables labeling.
      quotas: Weight of each category among the selected instructions. Empty: balanced over the categories
        (see `instructions.sampler`).
      min_complexity: Minimum complexity label, from 1 to 10. 0: no minimum.
      prefer_complex: Within a category, select instructions of higher complexity first.
      max_tokens: Maximum length of an instruction in tokens; longer instructions are dropped.
      max_new_tokens: Maximum length of a label in tokens.
      decontaminate: Files of prompts of benchmarks. Instructions that repeat one of them, have one in them,
        or share 13 words in a row with one, are left out.
      filters: Filters applied before labeling.
    """

    pool: int = _select(0)
    size: int = _select()
    categories: tuple[str, ...] = _select(CATEGORIES)
    quotas: dict[str, float] = _select(default_factory=dict)
    min_complexity: int = _select(0)
    prefer_complex: bool = _select(True)
    max_tokens: int = _select(1024)
    max_new_tokens: int = _select(48)
    decontaminate: tuple[str, ...] = _select((), by_content=True)
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
            (
                not self.quotas or any(self.quotas.values()),
                "select.quotas: at least one weight must be positive",
            ),
            (
                self.min_complexity == 0 or self.categories != (),
                "select.min_complexity needs select.categories: without labels no complexity is known",
            ),
            (not unknown, f"select.quotas has categories that are not in select.categories: {unknown}"),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Construction of response pairs.

    Attributes:
      mode: Kind of the rejected response y_l. Several modes make one pair each per instruction. A mapping
        of modes to shares, such as {"crossed": 0.4, "padded": 0.3, "cut_off": 0.3}, makes a mixture: as many
        pairs of each as the shares and the scarcest mode allow.
        "modified": an answer to a modified instruction x', in two calls. "modified_one_call": the same in one
        call, as in the paper. "degraded": a deliberately worse answer to x, the ablation of the paper.
        "high_temperature": one more answer to x, sampled with `high_temperature`. Without further calls:
        "nearest" and "random": the answer to another instruction, the most similar one or any; "truncated":
        the beginning of the better response. Pairs whose label is certain (docs/PAIRS.md), also without
        calls: "crossed", "random_crossed", "constraint" (with a second answer), "handicapped",
        "advantaged", "padded", "cut_off", "garbled", "neutral" (a tie, for train.objective "pairwise"),
        "composite", "arithmetic"; and, of people's references, "solutions" and "code".
      test_mode: Kinds of the test pairs, in the same form. Those that `mode` lacks show whether a judge has
        learned more than the kinds it was trained with. Empty: those of `mode`.
      better_from: Column of the instructions with a response to each, such as the reply that a team has
        sent, which is taken as the better response y_w. Rows without one are left out. "": the model answers.
      solutions: File of solved problems in the columns of GSM8K, for the mode "solutions".
      functions: File of functions with tests in the columns of MBPP, for the mode "code".
      sampling: Sampling of the better response y_w, unless it is from a column, and of all other calls but
        those of "high_temperature".
      high_temperature: Sampling of y_l in the mode of that name.
      max_response_tokens: Maximum length of a response in tokens.
      max_modified_tokens: Maximum length of x' in tokens.
      checks: Checks that a pair must pass.
      validation: Number of pairs held out to choose checkpoints.
      test: Number of pairs held out to evaluate every model.
    """

    mode: Modes = _pairs("modified")
    test_mode: Modes = _pairs((), used=lambda section: bool(section.test_mode))
    better_from: str = _pairs("", used=lambda section: section.better_from != "")
    solutions: str = _pairs("", by_content=True)
    functions: str = _pairs("", by_content=True)
    max_response_tokens: int = _pairs(1024)
    max_modified_tokens: int = _pairs(256)
    sampling: Sampling = _pairs(Sampling())
    high_temperature: Sampling = _pairs(
        Sampling(temperature=1.0, top_p=1.0),
        used=lambda section: not {"high_temperature", "constraint"}.isdisjoint(section.modes),
    )
    checks: PairChecks = _pairs(PairChecks())
    validation: int = config_field(affects=("pairs", "annotate", "train", "prefer"), by_content=True)
    test: int = config_field(affects=("pairs", *JUDGING), by_content=True)

    def __post_init__(self):
        trained, tested = self.modes_of("train"), self.modes_of("test")
        shares = [*self.shares_of("train").values(), *self.shares_of("test").values()]
        _require(
            (
                0 < len(trained) == len(set(trained)),
                f"pairs.mode must be one mode or several different ones, not {self.mode}",
            ),
            (
                len(tested) == len(set(tested)),
                f"pairs.test_mode must be one mode or several different ones, not {self.test_mode}",
            ),
            (
                all(0.0 < share < math.inf for share in shares),
                f"pairs.mode and pairs.test_mode: every share must be above 0, not {shares}",
            ),
            *(
                (
                    path != "",
                    f"pairs.mode {mode!r} needs the file pairs.{field}",
                )
                for mode, (field, path) in self.references.items()
            ),
            *_at_least_one(self, "pairs", "max_response_tokens", "max_modified_tokens"),
            (self.test >= 1, "pairs.test must be 1 or more: every model is evaluated on them"),
            (self.validation >= 0, "pairs.validation must be 0 or more"),
        )

    @property
    def modes(self) -> tuple[PairMode, ...]:
        """All modes, those of training first."""
        return tuple(dict.fromkeys((*self.modes_of("train"), *self.modes_of("test"))))

    @property
    def references(self) -> dict[PairMode, tuple[str, str]]:
        """Field and path of the file of each mode that is made of references."""
        fields: dict[PairMode, tuple[str, str]] = {
            "solutions": ("solutions", self.solutions),
            "code": ("functions", self.functions),
        }
        return {mode: field for mode, field in fields.items() if mode in self.modes}

    def modes_of(self, part: Part) -> tuple[PairMode, ...]:
        """Returns the modes of a part of the pairs."""
        mode = self._mode_of(part)
        return (cast(PairMode, mode),) if isinstance(mode, str) else tuple(mode)

    def shares_of(self, part: Part) -> dict[PairMode, float]:
        """Returns the share of each mode in a part of the pairs; empty if they are no mixture."""
        mode = self._mode_of(part)
        return mode if isinstance(mode, dict) else {}

    def _mode_of(self, part: Part) -> Modes:
        return self.test_mode if part == "test" and self.test_mode else self.mode


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnotateConfig:
    """Sampling of judgments, and the choice of those to train on.

    Attributes:
      max_pairs: Maximum number of training pairs that are judged, drawn at random. 0: all. The objective
        "pairwise" learns from the labels of all pairs, and needs no judgments; for it, they only show how
        the model judges the pairs before it is trained.
      samples: Maximum number of judgments per pair and order.
      stop_when_correct: Stops sampling an example once this many of its judgments are correct. 0: takes all
        samples.
      max_new_tokens: Maximum number of tokens of a judgment, in annotation and in evaluation. 0: the verdict
        without reasoning; requires `force_verdict`.
      sampling: Sampling of the judgments.
      force_verdict: If a judgment ends without a verdict, append the beginning of one and let the model
        choose the letter.
      max_per_example: Maximum number of correct judgments to train on, per pair and order.
      both_orders: Train only on pairs that are judged correctly in both orders.
    """

    max_pairs: int = config_field(0, affects=("annotate",), by_content=True)
    samples: int = config_field(15, affects=("annotate",))
    stop_when_correct: int = config_field(0, affects=("annotate",))
    max_new_tokens: int = config_field(4096, affects=JUDGING)
    sampling: Sampling = config_field(Sampling(), affects=("annotate",))
    force_verdict: bool = config_field(False, affects=JUDGING)
    max_per_example: int = config_field(1, affects=("train", "prefer"))
    both_orders: bool = config_field(False, affects=("train", "prefer"))

    def __post_init__(self):
        _require(
            (self.max_pairs >= 0, "annotate.max_pairs must be 0 (all) or more"),
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
    """Evaluation of models: one greedy judgment per pair and order, and optionally a majority vote.

    Attributes:
      votes: Number of samples of the majority vote. 0: no vote.
      sampling: Sampling of the votes.
      probes: Number of test pairs of which about 20 altered versions are judged too, which show what a model
        decides by (see docs/EVALUATION.md). 0: none.
    """

    votes: int = config_field(0, affects=("votes",))
    sampling: Sampling = config_field(Sampling(), affects=("votes",))
    probes: int = config_field(0, affects=("probes",))

    def __post_init__(self):
        _require(
            (self.votes >= 0, "evaluate.votes must be 0 or more"),
            (self.probes >= 0, "evaluate.probes must be 0 or more"),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Configuration of a whole run.

    Attributes:
      name: Name of the run, for display.
      seed: Seed of every random draw.
      iterations: Number of rounds of annotation and training.
      model: Seed model: GGUF file, Hugging Face folder or hub name, or model folder of another run.
      chat_template: File of a chat template that replaces that of the seed model. "": the model's own.
      chat_date: Date, as YYYY-MM-DD, that a chat template prints as today's. "": that of the seed model's
        training if it is of another run, else 2024-07-26.
      instructions: Source of instructions: a file or folder, "starter" (shipped with the package), or
        "tfds:NAME[:SPLIT]".
      instructions_column: Column that holds the instructions. "": the first one with a known name (see
        docs/DATA.md).
      labelled_pairs: File of pairs with labels. One half replaces the validation pairs; on the other half
        every model is evaluated in addition to the test pairs. Instructions with the text of one of their
        prompts are left out. "": none.
      judge_prompt: Built-in judge prompt or template file (see `judging.prompts`).
      rubric: Criteria shown to the judge. "": those of the prompt.
      train_from: Model that each iteration starts from: the "seed", as in the paper, or the "last" one.
      model_dtype: Dtype of the parameters of the trained models on disk. "": `decode.dtype`, in which their
        checkpoints were chosen.
      mesh: Sizes of the mesh axes data, fsdp and tensor. -1: the remaining devices.
      train_mesh: The same for training, over the same devices. Empty: `mesh`. For decoding, `tensor` should
        equal the number of key/value heads; for training, `fsdp` the number of rows.
      select: Selection of the instructions.
      pairs: Construction of response pairs.
      annotate: Sampling of judgments.
      train: Fine-tuning.
      prefer: Preference training that starts from the fine-tuned model. None: no preference training (see
        `read_config`).
      evaluate: Evaluation of models.
      decode: Sizes and precision of the decoding engine.
    """

    name: str = config_field(affects=())
    seed: int = config_field(0, affects=STAGES)
    iterations: int = config_field(5, affects=())
    model: str = config_field(affects=STAGES, by_content=True)
    chat_template: str = config_field("", affects=STAGES, by_content=True)
    chat_date: str = config_field("", affects=STAGES, used=lambda section: section.chat_date != "")
    instructions: str = config_field(affects=("select",), by_content=True)
    instructions_column: str = config_field("", affects=("select",), by_content=True)
    labelled_pairs: str = config_field("", affects=("select", *JUDGING), by_content=True)
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
    evaluate: EvaluateConfig = config_field(EvaluateConfig(), affects=("votes", "probes"))
    decode: DecodeSettings = config_field(DecodeSettings(), affects=STAGES)

    def __post_init__(self):
        _ = self.chat  # checks the date
        validated = self.pairs.validation > 0 or self.labelled_pairs != ""
        _require(
            (self.iterations >= 1, f"iterations must be 1 or more, not {self.iterations}"),
            (self.model != "", "model must name a model"),
            (self.instructions != "", "instructions must name a source"),
            (
                is_mesh(self.mesh),
                f"mesh must be sizes of 1 or more, at most one of them -1, not {self.mesh}",
            ),
            (
                self.train_mesh == () or is_mesh(self.train_mesh),
                f"train_mesh must be three sizes, as mesh, or empty, not {self.train_mesh}",
            ),
            (
                self.held_out < self.select.size * len(self.pairs.modes),
                f"select.size ({self.select.size}) leaves no pair to train on, since {self.held_out} "
                f"are held out",
            ),
            (
                self.train.evaluate_every == 0 or validated,
                "train.evaluate_every needs pairs.validation or labelled_pairs to choose checkpoints by",
            ),
            (
                self.train.patience == 0 or validated,
                "train.patience needs pairs.validation or labelled_pairs to measure progress by",
            ),
            (
                self.train.objective != "pairwise"
                or (self.annotate.max_new_tokens, self.annotate.samples) == (0, 1),
                "train.objective 'pairwise' trains the verdict alone, whose log-odds one sample records: set "
                "annotate.max_new_tokens to 0, annotate.force_verdict to True and annotate.samples to 1",
            ),
            (
                self.train.objective == "pairwise" or "neutral" not in self.pairs.modes,
                "pairs.mode 'neutral' makes ties, which only train.objective 'pairwise' can learn from",
            ),
            (
                self.prefer is None or (self.train.objective, self.prefer.objective) == ("sft", "dpo"),
                "prefer needs train.objective 'sft' and prefer.objective 'dpo'; for preference training "
                "alone, set train.objective to 'dpo' and prefer.epochs to 0",
            ),
        )
        shards = math.prod(size for size in (self.train_mesh or self.mesh)[:2] if size > 0)
        for name, settings in self.trainings.items():
            if settings.micro_rows % shards:
                raise SteError(
                    "config_invalid",
                    f"config: {name}.micro_rows ({settings.micro_rows}) is not a multiple of mesh data x "
                    f"fsdp ({shards})",
                )

    @property
    def chat(self) -> ChatSettings:
        """Replacements for the chat template of the seed model, or for a part of it."""
        return ChatSettings(self.chat_template, self.chat_date)

    @property
    def held_out(self) -> int:
        """Minimum number of constructed pairs that are held out; labelled pairs replace validation pairs."""
        return self.pairs.test + (0 if self.labelled_pairs else self.pairs.validation)

    @property
    def trainings(self) -> dict[str, TrainSettings]:
        """Settings of the trainings of an iteration, in order, by the name of their stage."""
        return {"train": self.train} | ({"prefer": self.prefer} if self.prefer else {})


def fingerprint_of(config: RunConfig, stage: str) -> dict[str, Any]:
    """Returns the configuration values that the records of a stage depend on, nested by section.

    A stage is stale if they differ from those that it was made with. Every field states what it affects
    where it is declared (see `config_field`); inputs that are hashed by content are not among the values.
    """
    assert stage in STAGES, stage
    return values_affecting(config, stage)


def complete(config: ConfigDict, kind: type = RunConfig) -> None:
    """Adds the fields with defaults that a configuration leaves out, so that flags can set every field.

    Fields of `prefer` are not added: without a value there, that of `train` holds.
    """
    for field in dataclasses.fields(kind):
        missing = field.name not in config
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if missing and dataclasses.is_dataclass(default):
            config[field.name] = ConfigDict(dataclasses.asdict(cast(Any, default)))
        elif missing and default not in (dataclasses.MISSING, None):
            config[field.name] = ConfigDict(default) if isinstance(default, dict) else default
        elif isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            section = config.get(field.name)
            if isinstance(section, ConfigDict):
                complete(section, field.type)


def read_config(value: dict[str, Any]) -> RunConfig:
    """Returns the checked configuration of a nested dict (`ConfigDict.to_dict()`).

    The section `prefer` holds the fields that differ from `train`; without it, or with `epochs` 0, there is
    no preference training. By default its rows are twice as long, since an example is two judgments.

    Raises:
      SteError: "config_renamed" for a field or value under its old name; "config_invalid" for an unknown,
        missing or ill-typed field, or a combination that cannot work. The message names the field.
    """
    given = _with_tuples(value)
    check_renamed(given)
    own = given.pop("prefer", None) or {}
    config = _read(RunConfig, given)
    if not own or own.get("epochs") == 0:
        return config
    same = dataclasses.asdict(config.train) | {"objective": "dpo", "row_length": 2 * config.train.row_length}
    try:
        return dataclasses.replace(config, prefer=_read(TrainSettings, same | own))
    except SteError as error:
        raise SteError(error.code, f"{error} (in the section prefer)") from error


def _read(kind: type[T], value: dict[str, Any]) -> T:
    try:
        return dacite.from_dict(kind, value, dacite.Config(strict=True, type_hooks={float: _number}))
    except dacite.UnexpectedDataError as error:
        raise SteError("config_invalid", f"config: {error}; docs/CONFIG.md lists the fields") from error
    except dacite.WrongTypeError as error:
        several = get_origin(error.field_type) in (Literal, Union, types.UnionType)
        expected = f"{'one of ' if several else ''}{type_text(error.field_type)}"
        raise SteError(
            "config_invalid", f"config: {error.field_path} must be {expected}, not {error.value!r}"
        ) from error
    except dacite.DaciteError as error:
        raise SteError("config_invalid", f"config: {error}") from error
    except SteError:
        raise
    except ValueError as error:  # a check of a section
        raise SteError("config_invalid", f"config: {error}") from error


def _number(value: Any) -> Any:
    """Returns an int as a float, for fields of type float; other values are left to the type check."""
    return float(value) if type(value) is int else value


def _with_tuples(value: Any) -> Any:
    """Returns a nested value with its lists as tuples; strings stay strings."""
    if isinstance(value, dict):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value
