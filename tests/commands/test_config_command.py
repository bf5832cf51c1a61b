"""`ste config` and `ste init`."""

import subprocess
import sys
from pathlib import Path

import pytest

from ste_jax.commands.config import listing, source
from ste_jax.config import read_config
from ste_jax.config_reference import own_fields, section_fields
from ste_jax.shipped import config_names, read_config_file
from tests.errors import raises


def values(text: str) -> dict[str, str]:
    """Returns the value of each field of a listing."""
    lines = [line for line in text.splitlines() if " = " in line and not line.startswith(" ")]
    return dict(line.split(" = ", 1) for line in lines)


def test_the_defaults_are_listed_with_types_stages_and_descriptions() -> None:
    text = listing("")
    assert values(text)["model"] == "required"
    sizes = [field.default_text for field in section_fields("select") if field.name == "size"]
    assert [values(text)["select.size"]] == sizes
    assert {field.name for field in own_fields()} <= set(values(text))
    about = text.split("annotate.max_pairs = ")[1].split("annotate.samples")[0]
    assert "Maximum number of training pairs" in about
    assert "(int; affects: annotate (content))" in about


@pytest.mark.parametrize("name", config_names())
def test_the_values_of_shipped_configurations(name: str) -> None:
    config = read_config(read_config_file(name))
    listed = values(listing(name))
    assert listed["name"] == f'"{config.name}"'
    assert listed["train.learning_rate"] == repr(config.train.learning_rate)
    assert listed["select.filters.max_chars"] == repr(config.select.filters.max_chars)


def test_an_argument_of_a_configuration() -> None:
    assert values(listing("quickstart:runlocal"))["select.size"] == "12"


def test_an_unknown_configuration_is_refused() -> None:
    with raises("config_unknown", "quickstat"):
        listing("quickstat")


@pytest.mark.parametrize("name", config_names())
def test_a_printed_configuration_can_be_edited_in_any_folder(name: str, tmp_path: Path) -> None:
    text = source(name)
    (tmp_path / "mine.py").write_text(text)
    assert read_config_file(tmp_path / "mine.py") == read_config_file(name)


@pytest.mark.parametrize("arguments", [["init"], ["init", "nothing"], ["config", "a", "b"]])
def test_wrong_calls_point_to_the_help(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ste_jax", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert f"ste {arguments[0]} --help" in done.stderr
    assert "Traceback" not in done.stderr
