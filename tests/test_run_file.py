"""The file RUN.json of a workdir."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from etils import epath

from ste_jax.config import RunConfig
from ste_jax.run_file import NAME, config_of_run, read_run, write_run
from tests.errors import raises


@pytest.fixture
def workdir(make_config: Callable[..., RunConfig], tmp_path: Path) -> epath.Path:
    folder = epath.Path(tmp_path)
    write_run(folder, make_config(seed=7), ["ste", "run", "--config=mine.py", "--workdir=my runs/a"])
    return folder


def test_a_run_file_holds_the_configuration_and_how_to_repeat_it(
    workdir: epath.Path, make_config: Callable[..., RunConfig]
) -> None:
    assert config_of_run(workdir) == make_config(seed=7)
    run = read_run(workdir)
    assert run["command"] == "ste run --config=mine.py '--workdir=my runs/a'"
    assert run["versions"]["jax"]
    assert run["commit"]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["train", "--iteration=2", "--config=a.py"], "ste run --config=a.py"),
        (["train", "--iteration", "2", "--config", "a.py"], "ste run --config a.py"),
        (["run", "--redo=pairs", "--config.name=two words"], "ste run '--config.name=two words'"),
    ],
)
def test_the_command_makes_the_whole_run(
    make_config: Callable[..., RunConfig], tmp_path: Path, arguments: list[str], command: str
) -> None:
    write_run(epath.Path(tmp_path), make_config(), ["/usr/bin/ste", *arguments])
    assert read_run(epath.Path(tmp_path))["command"] == command


def test_a_later_start_replaces_it(workdir: epath.Path, make_config: Callable[..., RunConfig]) -> None:
    write_run(workdir, make_config(seed=8), ["ste", "run"])
    assert config_of_run(workdir).seed == 8
    assert [path.name for path in workdir.iterdir()] == [NAME]


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with raises("file_not_found", str(tmp_path / NAME), "--config"):
        config_of_run(epath.Path(tmp_path))


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "{}", '{"schema_version": 2}', '{"schema_version": 2, "config": 1}']
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with raises("data_invalid", str(tmp_path / NAME)):
        config_of_run(epath.Path(tmp_path))


def test_a_file_of_a_newer_version_is_refused(workdir: epath.Path) -> None:
    value = json.loads((workdir / NAME).read_text())
    (workdir / NAME).write_text(json.dumps(value | {"schema_version": 99}))
    with raises("schema_newer", str(workdir / NAME)):
        config_of_run(workdir)
