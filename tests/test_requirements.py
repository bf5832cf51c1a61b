"""The name jetstream-pt on PyPI is a dummy that shows dependency confusion: nothing here may install it."""

import ast
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
FORBIDDEN = re.compile(r"jetstream[-_.]+pt\b", re.IGNORECASE)


def requirements() -> dict[str, list[str]]:
    """Returns the literals of setup.py by extra, "" for what is always installed."""
    found = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "setup.py").read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    return {"": found["REQUIRED"], **found["EXTRAS"]}


def test_every_requirement_parses() -> None:
    extras = requirements()
    assert {"tpu", "tfds", "test"} <= extras.keys()
    for lines in extras.values():
        names = [Requirement(line).name for line in lines]
        assert len(names) == len(set(names))


def test_no_requirement_is_the_dummy() -> None:
    for extra, lines in requirements().items():
        for line in lines:
            assert not FORBIDDEN.fullmatch(Requirement(line).name), f"extra {extra!r}"


@pytest.mark.parametrize(
    "path",
    [
        *(ROOT / "setup.py", ROOT / "pyproject.toml"),
        *sorted(path for folder in ("scripts", "tpu", ".ci") for path in (ROOT / folder).rglob("*")),
        *sorted(ROOT.glob("*requirements*.txt")),
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_file_that_installs_names_the_dummy(path: Path) -> None:
    if path.is_file():
        assert not FORBIDDEN.search(path.read_text(errors="replace"))


@pytest.mark.parametrize("name", ["jetstream-pt", "jetstream_pt", "JetStream.PT"])
def test_the_check_sees_every_spelling(name: str) -> None:
    assert FORBIDDEN.fullmatch(Requirement(f"{name}>=1").name)
    assert FORBIDDEN.search(f"pip install {name}==0.2")
