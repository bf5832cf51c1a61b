"""The shipped configurations, from any folder and as copies, and the public names of the package."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import ste_jax
from ste_jax.config import read_config
from ste_jax.shipped import config_folder, config_names, import_config, read_config_file, resolve_config
from tests.errors import raises

ROOT = Path(__file__).parents[1]
NAMES = (
    *("company_data", "llama3_8b", "llama3_70b"),
    *("pairwise_judge", "paper_70b", "paper_small", "quickstart", "small_judge"),
)


def test_a_shipped_name_works_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_folder() == ROOT / "configs"
    assert set(NAMES) == {*config_names()}
    for name in config_names():
        assert read_config(read_config_file(f"{name}:runlocal")).name == name
    assert read_config_file("paper_small:runlocal")["iterations"] == 1
    assert read_config_file("paper_small")["iterations"] == 2


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text("")
    assert resolve_config("quickstart") == "quickstart"


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_works_in_another_folder(tmp_path: Path, name: str) -> None:
    copy = shutil.copy(config_folder() / f"{name}.py", tmp_path / "mine.py")
    assert read_config_file(copy) == read_config_file(name)


def test_an_unknown_configuration_is_named(tmp_path: Path) -> None:
    with raises("config_unknown", "quickstat", "quickstart"):
        read_config_file("quickstat")
    with raises("config_unknown", "quickstat"):
        import_config("quickstat")
    (tmp_path / "empty.py").write_text("")
    with raises("config_invalid", "empty.py"):
        read_config_file(tmp_path / "empty.py")


def test_run_takes_every_kind_of_configuration(tmp_path: Path) -> None:
    fields = read_config_file("quickstart:runlocal") | {"model": str(tmp_path / "absent")}
    (tmp_path / "mine.py").write_text(
        f"from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({fields!r})\n"
    )
    for config in (ConfigDict(fields), read_config(fields), tmp_path / "mine.py", str(tmp_path / "mine.py")):
        with raises("file_not_found", str(tmp_path / "absent")):
            ste_jax.run(config, tmp_path / "run")


def test_importing_the_package_loads_no_library() -> None:
    program = """if True:
        import json, sys, time
        before, start = {name.partition(".")[0] for name in sys.modules}, time.perf_counter()
        import ste_jax
        seconds = time.perf_counter() - start
        after = {name.partition(".")[0] for name in sys.modules} - before - sys.stdlib_module_names
        assert ste_jax.SteError.__module__ == "ste_jax.errors"
        print(json.dumps([seconds, sorted(after), dir(ste_jax)]))"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, loaded, names = json.loads(done.stdout)
    assert loaded == ["ste_jax"]
    assert seconds < 0.2
    assert {*ste_jax.__all__} <= {*names}
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ste_jax.no_such_name
