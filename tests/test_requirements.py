"""Requirements of the package: every import is declared, heavy libraries are extras, and never jetstream-pt.

The name jetstream-pt on PyPI is a dummy that shows dependency confusion: nothing here may install it.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FORBIDDEN = re.compile(r"jetstream[-_.]+pt\b", re.IGNORECASE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# A requirement that no module imports: sentencepiece models are read by it.
LOADED_BY_OTHERS = {"protobuf"}


def requirements() -> dict[str, list[str]]:
    """Returns the requirements by extra, "" for those that are always installed."""
    return {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}


def names_of(extra: str) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements()[extra]}


def imported() -> Iterator[tuple[str, bool]]:
    """Yields the top-level name of every import in the package, and True if it is inside a function."""
    for path in (ROOT / "ste_jax").rglob("*.py"):
        tree = ast.parse(path.read_text())
        lazy = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
        typing_only = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for node in ast.walk(block)
        }
        for node in ast.walk(tree):
            if id(node) in typing_only:
                continue
            if isinstance(node, ast.ImportFrom):
                yield (node.module or "").split(".")[0], id(node) in lazy
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name.split(".")[0], id(node) in lazy


def test_every_requirement_parses() -> None:
    extras = requirements()
    assert {"tpu", "cuda", "plan", "tfds", "select", "report", "test"} <= extras.keys()
    for lines in extras.values():
        names = [Requirement(line).name for line in lines]
        assert len(names) == len(set(names))


def test_accelerators_get_the_same_jax() -> None:
    versions = {
        str(requirement.specifier)
        for extra in ("", "tpu", "cuda")
        for requirement in map(Requirement, requirements()[extra])
        if requirement.name == "jax"
    }
    assert len(versions) == 1
    assert versions.pop().startswith("==")


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"]
    version = re.search(
        r'^__version__ = "(.+)"$', (ROOT / "ste_jax" / "__init__.py").read_text(), re.MULTILINE
    )
    assert version
    for name in ("pyproject.toml", "setup.py", "CITATION.cff"):
        assert not re.search(rf"\b{re.escape(version[1])}\b", (ROOT / name).read_text()), name


def test_every_import_is_declared_and_every_requirement_is_imported() -> None:
    distributions = packages_distributions()
    used = {
        canonicalize_name(name)
        for module, _ in imported()
        if module not in sys.stdlib_module_names and module != "ste_jax"
        for name in distributions.get(module, [module])
    }
    core, extras = names_of(""), names_of("select") | names_of("report") | names_of("tfds") | names_of("plan")
    assert used <= core | extras
    assert core - LOADED_BY_OTHERS <= used


def test_libraries_of_extras_are_imported_where_they_are_used() -> None:
    eager = {module for module, lazy in imported() if not lazy}
    assert not eager & {"lingua", "phonenumbers", "stdnum", "sklearn", "tensorboardX", "datasketch"}
    program = """if True:
        import sys
        import ste_jax.pipeline, ste_jax.evaluation.run, ste_jax.evaluation.compare
        heavy = {"lingua", "phonenumbers", "stdnum", "sklearn", "tensorboardX", "datasketch", "matplotlib",
                 "statsmodels", "pandas", "tensorflow_datasets", "libtpu", "torch"}
        print(*sorted(heavy & sys.modules.keys()))"""
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


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
