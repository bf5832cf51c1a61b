import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from ste_jax.config import RunConfig, fingerprint_of
from ste_jax.config_field import INHERITED, STAGES
from ste_jax.pipeline import stage_folders
from ste_jax.records import Generation
from ste_jax.stages.context import Context
from ste_jax.storage.record_set import RecordSet
from tests.errors import raises

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def config(make_config: MakeConfig) -> RunConfig:
    """A configuration in which every field has an effect."""
    return make_config(
        pairs={"mode": ("degraded", "high_temperature")},
        evaluate={"votes": 2, "probes": 2},
        prefer={"epochs": 1.0},
    )


def leaves(section: Any, path: tuple[str, ...] = (), holder: tuple[str, ...] = ()) -> Iterator[tuple]:
    """Yields (path, metadata, stages) of each field that holds no section."""
    for field in dataclasses.fields(section):
        affects = field.metadata["affects"]
        stages, value = holder if affects == INHERITED else affects, getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, (*path, field.name), stages)
        else:
            yield (*path, field.name), field.metadata, stages


def sections(section: Any) -> Iterator[Any]:
    """Yields a section and those inside it."""
    yield section
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(value := getattr(section, field.name)):
            yield from sections(value)


def other(value: Any) -> Any:
    """Returns another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case tuple():
            return (*value, "x")
    return {**value, "x": 1.0}


def with_other(section: Any, path: tuple[str, ...]) -> Any:
    """Returns a section with another value at a path, without the checks of its values."""
    changed, (name, *rest) = copy.copy(section), path
    value = getattr(section, name)
    object.__setattr__(changed, name, with_other(value, tuple(rest)) if rest else other(value))
    return changed


def stale_stages(before: RunConfig, after: RunConfig) -> set[str]:
    """Returns the stages whose fingerprints differ between two configurations."""
    return {stage for stage in STAGES if fingerprint_of(before, stage) != fingerprint_of(after, stage)}


def test_every_field_declares_stages_that_exist(config: RunConfig) -> None:
    for section in sections(config):
        for field in dataclasses.fields(section):
            assert "affects" in field.metadata, f"{type(section).__name__}.{field.name}"
            affects = field.metadata["affects"]
            assert affects == INHERITED or set(affects) <= set(STAGES), field.name


def test_a_field_that_holds_a_section_names_all_stages_of_the_section(config: RunConfig) -> None:
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(section := getattr(config, field.name)):
            affects = field.metadata["affects"]
            inner = {stage for *_, stages in leaves(section, (), affects) for stage in stages}
            assert inner == set(affects), field.name


def test_the_stages_are_those_of_the_pipeline(config: RunConfig, tmp_path: Path) -> None:
    folders = stage_folders(Context(config, epath.Path(tmp_path)))
    assert {folder.split("/")[-1] for folder in folders} == set(STAGES)


def test_each_field_makes_exactly_the_declared_stages_stale(config: RunConfig) -> None:
    seen = 0
    for path, metadata, stages in leaves(config):
        expected = set() if metadata["by_content"] else set(stages)
        assert stale_stages(config, with_other(config, path)) == expected, ".".join(path)
        seen += 1
    assert seen > 90


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("seed", STAGES),
        ("mesh", ()),
        ("train_mesh", ()),
        ("iterations", ()),
        ("select.filters.max_chars", ("select",)),
        ("pairs.high_temperature.top_p", ("pairs",)),
        ("annotate.samples", ("annotate",)),
        ("annotate.force_verdict", ("annotate", "train", "prefer", "evaluate", "votes", "probes")),
        ("annotate.both_orders", ("train", "prefer")),
        ("train.learning_rate", ("train",)),
        ("train.micro_rows", ()),
        ("prefer.learning_rate", ("prefer",)),
        ("prefer.remat", ()),
        ("evaluate.votes", ("votes",)),
        ("evaluate.probes", ("probes",)),
        ("decode.dtype", STAGES),
        ("decode.buckets", STAGES),
        ("decode.sequences", STAGES),
    ],
)
def test_stages_of_single_fields(config: RunConfig, name: str, stages: tuple[str, ...]) -> None:
    assert stale_stages(config, with_other(config, tuple(name.split(".")))) == set(stages)


def test_a_field_without_effect_makes_nothing_stale(make_config: MakeConfig) -> None:
    config = make_config(pairs={"mode": "degraded"})
    assert stale_stages(config, with_other(config, ("pairs", "high_temperature", "top_p"))) == set()


@pytest.mark.parametrize("stage", ["select", "annotate", "evaluate", "train"])
@pytest.mark.parametrize("finish", [True, False])
def test_resuming_with_another_decode_dtype_is_refused(
    make_config: MakeConfig, tmp_path: Path, stage: str, finish: bool
) -> None:
    folder = epath.Path(tmp_path / stage)

    def opened(dtype: str) -> RecordSet[Generation]:
        context = Context(make_config(decode={"dtype": dtype}), epath.Path(tmp_path))
        return RecordSet(folder, Generation, context.fingerprint(stage, model="m"))

    records = opened("float32")
    if finish:
        records.finish([], {})
    opened("float32")
    with raises("stage_stale", str(folder), "config.decode.dtype", "float32", "bfloat16"):
        opened("bfloat16")


def test_a_stage_of_an_older_version_is_refused_by_name(make_config: MakeConfig, tmp_path: Path) -> None:
    folder, config = epath.Path(tmp_path / "select"), make_config()
    # As written before fingerprints had a schema version.
    RecordSet(folder, Generation, {"stage": "select", "seed": 0, "config": {"size": 12}, "inputs": {}})
    fingerprint = Context(config, epath.Path(tmp_path)).fingerprint("select")
    with raises("stage_stale", str(folder), "older version", "--redo=select"):
        RecordSet(folder, Generation, fingerprint)
