"""The README's first command, run for real on the smallest sizes, and the built wheel."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "quickstart.sh"
SMALL = "--config=quickstart:runlocal"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, compiled: Path) -> dict[str, str]:
    """The environment of a user whose .venv is set up: `ste` is the package of this checkout."""
    venv = tmp_path_factory.mktemp("quickstart") / "venv"
    (venv / "bin").mkdir(parents=True)
    programs = {
        "python": f'exec "{sys.executable}" "$@"',
        "ste": f'exec "{sys.executable}" -c "from ste_jax.cli import command; command()" "$@"',
    }
    for name, line in programs.items():
        program = venv / "bin" / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    return os.environ | {
        "VENV": str(venv),
        "PYTHONPATH": str(ROOT),
        "STE_INSTALLED": "1",
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def test_the_quickstart_runs(environment: dict[str, str], smollm2_path: Path, tmp_path: Path) -> None:
    command = ["bash", str(SCRIPT), "--workdir=~/run", SMALL]
    home = environment | {"HOME": str(tmp_path), "STE_TEST_MODEL": str(smollm2_path)}
    done = subprocess.run(command, env=home, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    workdir = tmp_path / "run"
    models = json.loads((workdir / "summary.json").read_text())["models"]
    assert [model["iteration"] for model in models] == [0, 1]
    assert "quickstart" in (workdir / "report.html").read_text()
    question, *ranked = done.stdout.strip().splitlines()[-6:]
    assert question.endswith("?")
    assert [line.partition(".")[0] for line in ranked] == ["1", "2", "3", "4", "5"]
    (log,) = (workdir / "logs").glob("*-process0.log")
    text = log.read_text()
    for line in ("command: ", "versions: ", "config: ", "process 0 of 1: "):
        assert line in text


def test_the_wheel_holds_the_package_and_its_configurations(tmp_path: Path) -> None:
    source = tmp_path / "source"
    copy = ["git", "-C", str(ROOT), "checkout-index", "--all", f"--prefix={source}/"]
    subprocess.run(copy, check=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        str(source),
    ]
    subprocess.run([*command, "--wheel-dir", str(tmp_path)], check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("ste_jax-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(source)) for p in (source / "ste_jax").rglob("*") if p.is_file()}
    configs = {f"ste_jax/configs/{p.name}" for p in (source / "configs").glob("*.py")}
    assert modules | configs <= names
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"ste_jax"}


@pytest.mark.pods
def test_the_installed_core_runs_the_quickstart_from_any_folder(tmp_path: Path) -> None:
    """A fresh environment with the core alone, which fetches the model: minutes, and a gigabyte from PyPI."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    programs = tmp_path / "venv" / "bin"
    subprocess.run([programs / "pip", "install", "--quiet", str(ROOT)], check=True, timeout=1800)
    home = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "STE_TEST_MODEL")}
    home |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    command = [programs / "ste", "run", SMALL, "--workdir=run"]
    done = subprocess.run(command, env=home, capture_output=True, text=True, cwd=tmp_path, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
    assert list((tmp_path / "cache" / "ste_jax").glob("*.gguf"))
