import copy
import dataclasses
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from ste_jax import cli
from ste_jax.config import RunConfig, read_config
from ste_jax.config_renames import RENAMED, RENAMED_VALUES
from tests.errors import raises

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
PAPER_SMALL = next(path for path in CONFIGS if path.stem == "paper_small")


def shipped(path: Path, argument: str = "") -> ConfigDict:
    return runpy.run_path(str(path))["get_config"](argument)


def changed(**changes: Any) -> dict[str, Any]:
    """Returns the values of paper_small, its sizes fixed, with others at dotted names, `__` for the dot."""
    value = copy.deepcopy(shipped(PAPER_SMALL).to_dict())
    value["select"] |= {"size": 64, "pool": 120}
    value["pairs"] |= {"validation": 8, "test": 16}
    value["train"] |= {"batch_rows": 2, "micro_rows": 2}
    for name, new in changes.items():
        *path, last = name.split("__")
        inner = value
        for step in path:
            inner = inner[step]
        inner[last] = new
    return value


def test_all_configs_are_seen() -> None:
    names = {"quickstart", "paper_small", "llama3_8b", "llama3_70b", "paper_70b", "company_data"}
    assert names <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("argument", ["", "runlocal"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_good(path: Path, argument: str) -> None:
    config = read_config(shipped(path, argument).to_dict())
    assert isinstance(config, RunConfig)
    assert config.name == path.stem
    hash(config.decode)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_runlocal_is_small(path: Path) -> None:
    config = read_config(shipped(path, "runlocal").to_dict())
    assert config.iterations == 1
    assert config.instructions == "starter"
    assert config.select.size <= (60 if path.stem == "company_data" else 12)
    assert config.mesh == (1, 1, 1)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_refuse_other_arguments(path: Path) -> None:
    with pytest.raises(ValueError, match=f"{path.stem}: unknown argument 'tiny'; there .*runlocal"):
        shipped(path, "tiny")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_docstring_is_the_launch_command(path: Path) -> None:
    doc = runpy.run_path(str(path))["__doc__"]
    assert any(f"ste run --config={name}" in doc for name in (path.stem, f"configs/{path.name}"))


def test_two_calls_share_nothing() -> None:
    for path in CONFIGS:
        one, other = shipped(path), shipped(path)
        one.select.size += 1
        assert one.select.size == other.select.size + 1


def test_the_paper_is_the_paper() -> None:
    config = read_config(shipped(PAPER_SMALL.with_name("paper_70b.py")).to_dict())
    assert (config.iterations, config.annotate.samples, config.select.size) == (5, 15, 20582)
    assert (config.annotate.sampling.temperature, config.annotate.sampling.top_p) == (0.7, 0.9)
    assert (config.train_from, config.pairs.mode, config.evaluate.votes) == ("seed", "modified_one_call", 32)
    assert not config.annotate.force_verdict


def test_defaults_are_filled_in_and_lists_become_tuples() -> None:
    config = read_config(changed(decode={"buckets": [64, 128]}, mesh=[1, -1, 1], train__learning_rate=1))
    assert config.decode.buckets == (64, 128)
    assert config.mesh == (1, -1, 1)
    assert config.decode.sequences == 64
    assert config.train.learning_rate == 1.0
    assert type(config.train.learning_rate) is float
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3


@pytest.mark.parametrize(
    ("name", "field"),
    [("sead", "sead"), ("annotate__smaples", "smaples"), ("select__filters__language", "language")],
)
def test_unknown_fields_are_refused(name: str, field: str) -> None:
    with raises("config_invalid", f'"{field}"', "docs/CONFIG.md"):
        read_config(changed(**{name: 1}))


@pytest.mark.parametrize(("section", "field"), [("", "model"), ("select", "size"), ("train", "batch_rows")])
def test_missing_fields_are_refused(section: str, field: str) -> None:
    value = changed()
    del (value[section] if section else value)[field]
    with raises("config_invalid", f'"{section and section + "."}{field}"'):
        read_config(value)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("seed", "zero"),
        ("seed", 1.5),
        ("model", 3),
        ("pairs__mode", "better"),
        ("pairs__mode", ("nearest", "better")),
        ("train_from", "first"),
        ("mesh", (1, 1)),
        ("mesh", "111"),
        ("select__size", "12"),
        ("select__categories", "Coding"),
        ("select__categories", (1, 2)),
        ("select__filters__languages", "en"),
        ("select__quotas", {"Coding": "much"}),
        ("annotate__force_verdict", "yes"),
        ("train__learning_rate", "1e-6"),
        ("train__remat", "half"),
        ("decode__buckets", ("128",)),
        ("decode__dtype", "float16"),
        ("decode", 7),
    ],
)
def test_ill_typed_fields_are_refused(name: str, wrong: object) -> None:
    # The field or one of its parents is named.
    with raises("config_invalid", name.split("__")[0]):
        read_config(changed(**{name: wrong}))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"iterations": 0}, "iterations"),
        ({"model": ""}, "model"),
        ({"instructions": ""}, "instructions"),
        ({"select__pool": -1}, "select.pool"),
        ({"select__pool": 63}, "select.pool"),
        ({"select__size": 0, "select__pool": 0}, "select.size"),
        ({"select__max_tokens": 0}, "select.max_tokens"),
        ({"select__max_new_tokens": 0}, "select.max_new_tokens"),
        ({"select__min_complexity": 11}, "select.min_complexity"),
        ({"select__min_complexity": -1}, "select.min_complexity"),
        ({"select__quotas": {"Cooking": 1.0}}, "select.quotas"),
        ({"select__quotas": {"Cooking": 1.0, "unlabelled": 1.0}}, "select.quotas"),
        ({"pairs__test": 0}, "pairs.test"),
        ({"pairs__validation": -1, "train__evaluate_every": 0}, "pairs.validation"),
        ({"pairs__test": 56}, "select.size"),
        ({"pairs__validation": 0}, "train.evaluate_every"),
        (
            {"pairs__validation": 0, "train__evaluate_every": 0, "train__patience": 2},
            "train.patience",
        ),
        ({"pairs__max_response_tokens": 0}, "pairs.max_response_tokens"),
        ({"pairs__max_modified_tokens": -3}, "pairs.max_modified_tokens"),
        ({"annotate__samples": 0}, "annotate.samples"),
        ({"annotate__stop_when_correct": 5}, "annotate.stop_when_correct"),
        ({"annotate__stop_when_correct": -1}, "annotate.stop_when_correct"),
        ({"annotate__max_per_example": 0}, "annotate.max_per_example"),
        ({"annotate__max_new_tokens": -1}, "annotate.max_new_tokens"),
        (
            {"annotate__max_new_tokens": 0, "annotate__force_verdict": False},
            "annotate.max_new_tokens",
        ),
        ({"pairs__mode": ()}, "pairs.mode"),
        (
            {"pairs__mode": ("degraded", "degraded")},
            "pairs.mode",
        ),
        ({"evaluate__votes": -1}, "evaluate.votes"),
        ({"evaluate__probes": -1}, "evaluate.probes"),
        ({"mesh": (0, 1, 1)}, "mesh"),
        ({"mesh": (-1, -1, 1)}, "mesh"),
        ({"train_mesh": (-1, -1, 1)}, "train_mesh"),
        ({"train_mesh": (1, 1)}, "train_mesh"),
        ({"select__quotas": {"Coding": -1.0}}, "select.quotas"),
        ({"mesh": (2, 3, 1)}, "train.micro_rows"),
        ({"annotate__sampling": {"temperature": -0.1}}, "temperature"),
        ({"pairs__sampling": {"top_p": 0.0}}, "top_p"),
        ({"decode__samples_per_slot": 65}, "decode.samples_per_slot"),
        ({"decode__buckets": (256, 128)}, "decode.buckets"),
        ({"decode__suffix_chunk": 0}, "decode.suffix_chunk"),
        ({"train__batch_rows": 3}, "batch_rows"),
        ({"train__epochs": 0.0}, "epochs"),
        ({"select__filters__max_chars": 0}, "max_chars"),
        ({"pairs__checks": {"max_length_ratio": 0.5}}, "max_length_ratio"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], field: str) -> None:
    with raises("config_invalid", field):
        read_config(changed(**changes))


def test_labelled_pairs_replace_validation_pairs() -> None:
    config = read_config(changed(labelled_pairs="ours.jsonl", pairs__validation=0, pairs__test=63))
    assert config.pairs.test == config.select.size - 1


# ml_collections still loads configuration files by the deprecated load_module().
old_loader = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method is deprecated:DeprecationWarning")


@pytest.fixture
def overridden(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """Reads paper_small with command-line overrides, as the command `ste` does."""

    def read(*arguments: str) -> RunConfig:
        argv = ["ste", f"--config={PAPER_SMALL}", *arguments]
        monkeypatch.setattr("sys.argv", argv)
        values = flags.FlagValues()
        holder = config_flags.DEFINE_config_file("config", flag_values=values)
        values(argv)
        return read_config(holder.value.to_dict())

    return read


@old_loader
def test_overrides_keep_their_types(overridden: Callable[..., RunConfig]) -> None:
    config = overridden(
        "--config.seed=7",
        "--config.model=some model",
        "--config.train.learning_rate=1e-5",
        "--config.annotate.force_verdict=False",
        "--config.decode.buckets=(64,128)",
        "--config.mesh=(1,1,2)",
        "--config.select.filters.languages=('en','de')",
        "--config.labelled_pairs=ours.csv",
        "--config.select.decontaminate=('a.jsonl',)",
    )
    assert (config.seed, config.model, config.train.learning_rate) == (7, "some model", 1e-5)
    assert not config.annotate.force_verdict
    assert (config.decode.buckets, config.mesh) == ((64, 128), (1, 1, 2))
    assert config.select.filters.languages == ("en", "de")
    assert config.labelled_pairs == "ours.csv"
    assert config.select.decontaminate == ("a.jsonl",)


@old_loader
@pytest.mark.parametrize("override", ["--config.seed=one", "--config.annotate.force_verdict=7"])
def test_ill_typed_overrides_are_refused(overridden: Callable[..., RunConfig], override: str) -> None:
    with pytest.raises(flags.IllegalFlagValueError, match=override.split("=")[0].removeprefix("--")):
        overridden(override)


@old_loader
def test_overrides_reach_the_checks(overridden: Callable[..., RunConfig]) -> None:
    with raises("config_invalid", "iterations"):
        overridden("--config.iterations=0")


def test_preference_training_overrides_single_fields_of_fine_tuning() -> None:
    config = read_config(changed(prefer={"epochs": 1, "learning_rate": 5e-7}))
    assert list(config.trainings) == ["train", "prefer"]
    assert config.prefer == dataclasses.replace(
        config.train,
        objective="dpo",
        epochs=1.0,
        learning_rate=5e-7,
        row_length=2 * config.train.row_length,
    )
    for unused in ({}, {"epochs": 0.0, "learning_rate": 5e-7}):
        assert read_config(changed(prefer=unused)) == read_config(changed())
    assert list(read_config(changed()).trainings) == ["train"]


@pytest.mark.parametrize(
    ("prefer", "more", "places"),
    [
        ({"learning_rate": -1.0}, {}, ("learning_rate", "section prefer")),
        ({"learning_rat": 1.0}, {}, ("learning_rat", "section prefer")),
        ({"epochs": 1.0}, {"train__objective": "dpo"}, ("train.objective",)),
        ({"objective": "sft"}, {}, ("prefer.objective",)),
        ({"micro_rows": 1}, {"mesh": (1, 2, 1), "train__micro_rows": 2}, ("prefer.micro_rows",)),
    ],
)
def test_preference_training_is_checked_like_fine_tuning(
    prefer: dict, more: dict, places: tuple[str, ...]
) -> None:
    with raises("config_invalid", *places):
        read_config(changed(prefer=prefer, **more))


@pytest.fixture
def renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds a renamed section, renamed fields and a renamed value."""
    monkeypatch.setitem(RENAMED, "train.rows", "train.micro_rows")
    monkeypatch.setitem(RENAMED, "pairs.warm", "pairs.sampling")
    monkeypatch.setitem(RENAMED_VALUES, ("pairs.mode", "bad"), "degraded")
    monkeypatch.setitem(RENAMED_VALUES, ("train.schedule", "cos"), "cosine")


@pytest.mark.usefixtures("renamed")
@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"train__rows": 2}, ("train.rows is now train.micro_rows",)),
        ({"prefer": {"rows": 2}}, ("prefer.rows is now prefer.micro_rows",)),
        ({"pairs__warm": {"top_p": 1.0}}, ("pairs.warm is now pairs.sampling",)),
        ({"pairs__mode": "bad"}, ("pairs.mode", "'degraded'")),
        ({"pairs__mode": ["nearest", "bad"]}, ("pairs.mode", "'degraded'")),
        ({"prefer": {"schedule": "cos"}}, ("prefer.schedule", "'cosine'")),
    ],
)
def test_old_names_are_refused_with_the_new_ones(changes: dict[str, Any], names: tuple[str, ...]) -> None:
    with raises("config_renamed", *names):
        read_config(changed(**changes))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"pairs__hotter": {"top_p": 1.0}}, ("pairs.hotter", "pairs.high_temperature")),
        ({"pairs__mode": "hotter"}, ("pairs.mode", "'high_temperature'")),
        ({"pairs__mode": ["nearest", "shortened"]}, ("pairs.mode", "'truncated'")),
        ({"pairs__mode": "worse"}, ("pairs.mode", "'degraded'")),
    ],
)
def test_old_names_of_pairs_are_refused(changes: dict[str, Any], names: tuple[str, ...]) -> None:
    with raises("config_renamed", *names):
        read_config(changed(**changes))


@old_loader
@pytest.mark.usefixtures("renamed")
def test_old_names_on_the_command_line_are_refused_with_the_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    monkeypatch.setattr("ste_jax.cli.flags.FLAGS", values)
    argv = ["ste", f"--config={PAPER_SMALL}", "--config.train.rows=2"]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit, match=r"--config\.train\.micro_rows"):
        cli._parse_flags(argv)


def test_renamed_fields_lead_to_fields_that_exist() -> None:
    known = set(RunConfig.__dataclass_fields__)
    assert {new.partition(".")[0] for new in RENAMED.values()} <= known
    assert {name.partition(".")[0] for name, _ in RENAMED_VALUES} <= known
