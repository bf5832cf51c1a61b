"""Imports follow the layers of docs/ARCHITECTURE.md: stages are independent, packages import downwards."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import ste_jax

PACKAGE = Path(ste_jax.__file__).parent
ARCHITECTURE = Path(__file__).parents[1] / "docs" / "ARCHITECTURE.md"
MODULES = sorted(
    path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"
)
# Packages that know nothing of runs, commands and reports.
LIBRARY = ("pairs", "judging", "metrics", "data", "storage", "decode", "models")
ABOVE_LIBRARY = ("stages", "commands", "evaluation", "report", "plan")


def imports(source: str) -> Iterator[tuple[str, ...]]:
    """Yields the names that a module imports from ste_jax, as their parts, also within its functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "ste_jax")


def module_of(name: tuple[str, ...]) -> Path | None:
    """Returns the module that a name is or stands in; None for the names of `ste_jax/__init__.py`."""
    for end in range(len(name), 0, -1):
        path = Path(*name[:end])
        if (PACKAGE / path.with_suffix(".py")).exists():
            return path.with_suffix(".py")
        if (PACKAGE / path / "__init__.py").exists():
            return path / "__init__.py"
    return None


def imported() -> list[tuple[Path, Path]]:
    """Returns all pairs of a module and a module that it imports."""
    return [
        (module, target)
        for module in MODULES
        for name in imports((PACKAGE / module).read_text("utf-8"))
        if (target := module_of(name)) is not None
    ]


def package(module: Path) -> str:
    """Returns the package of a module: its folder, or the file itself, as the table names it."""
    return f"{module.parts[0]}/" if len(module.parts) > 1 else module.name


def is_stage(module: Path) -> bool:
    """Returns True if a module of stages/ is a stage: it has a function `run`."""
    if package(module) != "stages/":
        return False
    body = ast.parse((PACKAGE / module).read_text("utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in body)


def rows() -> dict[str, int]:
    """Returns the number of the row of each package in the table of docs/ARCHITECTURE.md, from the top."""
    table = re.findall(r"^\| (`.+?) \|", ARCHITECTURE.read_text("utf-8"), re.M)
    return {name: number for number, cell in enumerate(table) for name in re.findall(r"`(.+?)`", cell)}


def test_names_are_resolved_to_modules() -> None:
    source = "import ste_jax\nfrom ste_jax import logs\ndef f():\n    from ste_jax.stages.pairs import run"
    found = [module_of(name) for name in imports(source)]
    assert found == [None, Path("logs.py"), Path("stages/pairs.py")]


def test_no_stage_imports_another_stage() -> None:
    stages = {module for module in MODULES if is_stage(module)}
    names = ("select", "pairs", "annotate", "train", "prefer", "evaluate")
    assert stages == {Path("stages", f"{name}.py") for name in names}
    shared = [module for module in MODULES if package(module) == "stages/"]
    assert [(a, b) for a, b in imported() if a in shared and b in stages and a != b] == []


def test_only_what_works_on_a_whole_run_imports_stages() -> None:
    users = {package(a) for a, b in imported() if package(b) == "stages/"}
    assert users == {"stages/", "pipeline.py", "summary.py", "dry_run.py", "speed_probe.py", "commands/"}


def test_the_library_imports_nothing_of_runs_and_commands() -> None:
    library, above = ({f"{name}/" for name in names} for names in (LIBRARY, ABOVE_LIBRARY))
    assert library | above <= {package(module) for module in MODULES}
    assert [(a, b) for a, b in imported() if package(a) in library and package(b) in above] == []


def test_every_package_is_in_the_table_of_the_architecture() -> None:
    assert rows().keys() == {package(module) for module in MODULES}


def test_packages_import_only_packages_below_them() -> None:
    row = rows()
    assert [(a, b) for a, b in imported() if row[package(a)] > row[package(b)]] == []
