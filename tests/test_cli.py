"""The command line: mistakes end with one clear line, unexpected errors with a log file, help is fast."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest

import ste_jax
from ste_jax.cli import MODULES
from ste_jax.commands import completion
from ste_jax.commands.arguments import normalize
from ste_jax.commands.config_flag import SEVERAL_FORMS
from ste_jax.commands.usage import usage, usage_of
from ste_jax.config import RunConfig
from ste_jax.config_reference import section_of
from tests.conftest import ended
from tests.errors import raises

CONFIGS = Path(__file__).parents[1] / "configs"
# Loads the package once and runs every case in a forked process of its own.
_FORK = """
import json, os, sys
import ste_jax.checkpoint.export, ste_jax.pipeline, ste_jax.plan.model, ste_jax.status, ste_jax.evaluation.run
from ste_jax.cli import main

for name, arguments in json.load(open(sys.argv[1])).items():
    child = os.fork()
    if not child:
        for number in (1, 2):
            os.dup2(os.open(f"{sys.argv[2]}/{name}.{number}", os.O_WRONLY | os.O_CREAT, 0o600), number)
        sys.argv = ["ste", *arguments]
        main()
        sys.exit(0)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def crashing_workdir(folder: Path) -> Path:
    """Makes a workdir with a file instead of a stage's folder, which no command expects."""
    return written(folder / "odd" / "select", "").parent


# A configuration with a defect that shows when it is used.
CRASHING = """
from ml_collections import ConfigDict


class Odd(ConfigDict):
    def to_dict(self, *args, **kwargs):
        raise LookupError("the first line\\nand the second")


def get_config():
    return Odd()
"""
BROKEN_CONFIGS = {
    "syntax": "def get_config():\n    c =\n",
    "import_error": "import nothing_of_this_name\n",
    "type_error": "def get_config():\n    name = 1\n    return name + 'x'\n",
    "no_function": "x = 3\n",
    "no_config_dict": "def get_config():\n    return {}\n",
}
# Forms in which the command line replaces the mode of a configuration, whatever its own form is.
MODES = {
    "mapping_for_mapping": ("quickstart", "{'padded': 1.0}"),
    "tuple_for_mapping": ("quickstart", "('padded','cut_off')"),
    "name_for_mapping": ("quickstart", "padded"),
    "mapping_for_tuple": ("small_judge", "{'padded': 1.0}"),
    "name_for_tuple": ("small_judge", "padded"),
    "mapping_for_name": ("paper_70b", "{'padded': 1.0}"),
    "tuple_for_name": ("paper_70b", "('padded','cut_off')"),
}
PAIR = '{"instruction": "Name a river.", "response_a": "The Rhine.", "response_b": "A rose."}\n'
GOOD = '{"text": "Name a river."}\n'
HF_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}


def cases(folder: Path, config: Path, model: Path) -> dict[str, list[str]]:
    """Returns the arguments of every invalid call, by name."""
    base = ["run", f"--config={config}", f"--workdir={folder}/run"]
    untouched = [f"--workdir={folder}/untouched"]
    with model.open("rb") as file:
        gguf = written(folder / "cut.gguf", file.read(2_000_000))
    bare = written(folder / "bare" / "config.json", json.dumps(HF_CONFIG)).parent
    files = {
        "empty": "",
        "broken": GOOD + GOOD + '{"text": "half\n' + GOOD,
        "textless": GOOD + '{"question_text": "x"}\n',
    }
    pairs = written(folder / "pairs.jsonl", PAIR)
    into = ["--data=x.csv", f"--out={folder}/r.jsonl"]
    asked = ["evaluate", f"--model={gguf}"]
    sources = {name: written(folder / f"{name}.jsonl", content) for name, content in files.items()}
    return {
        **{name: [*base, f"--config.instructions={path}"] for name, path in sources.items()},
        "absent": [*base, f"--config.instructions={folder}/absent.jsonl"],
        "weightless": [*base, f"--config.model={bare}"],
        "truncated": [*base, f"--config.model={gguf}"],
        "modelless": [*base, f"--config.model={folder}/no-such-model"],
        "bucket": ["run", f"--config={config}", "--workdir=gs://bucket/run"],
        "bucket_model": [*base, "--config.model=gs://bucket/model"],
        "bucket_prompt": [*base, "--config.judge_prompt=gs://bucket/prompt.toml"],
        "bucket_out": ["evaluate", f"--model={folder}/absent", "--data=x.csv", "--out=gs://bucket/r.jsonl"],
        "bucket_target": ["convert", f"{folder}/absent", "gs://bucket/model"],
        "out_is_a_folder": ["evaluate", f"--model={folder}/absent", "--data=x.csv", f"--out={folder}"],
        "below_a_file": ["run", f"--config={config}", f"--workdir={gguf}/run"],
        "templateless": ["evaluate", f"--model={model}", f"--chat_template={folder}/absent.jinja", *into],
        "promptless": [*base, f"--config.judge_prompt={folder}/absent.toml"],
        "impossible": [*base, "--config.iterations=0"],
        "unknown_field": [*base, "--config.annotate.smaples=3"],
        "ill_typed": [*base, "--config.annotate.samples=three"],
        "unknown_section": [*base, "--config.sft.epochs=1"],
        "renamed_section": [*base, "--config.pairs.hotter.temperature=0.7"],
        "renamed_field": [*base, "--config.decode.columns=8"],
        "left_out_field": [*base, "--config.train.choose_by=mean"],
        "same_files": ["judge", "compare", f"--model={model}", f"--data={pairs}", f"--out={pairs}"],
        "configless": ["run", f"--config={folder}/absent.py", f"--workdir={folder}/run"],
        "wrong_redo": [*base, "--redo=anotate"],
        "too_early": ["pairs", *base[1:]],
        "mesh": [*base, "--config.mesh=(1,1,7)"],
        "old_flag": ["plan", base[1], "--topology=v5p-8", "--kept=0.4"],
        "hyphens": ["plan", base[1], "--topology=v5p-8", "--price-per-chip-hour=dear"],
        "crash": [
            "status",
            f"--config={written(folder / 'odd.py', CRASHING)}",
            f"--workdir={folder}/untouched",
        ],
        "out_below_a_file": [
            *("judge", "compare", f"--model={model}", f"--out={gguf}/verdicts.jsonl"),
            f"--data={pairs}",
        ],
        "target_is_a_file": ["convert", str(model), str(gguf)],
        "url": ["judge", "compare", f"--model={model}", "--out=r.jsonl", "--data=https://x.y/p.jsonl"],
        "shipped_name": ["run", "--config=quikstart", f"--workdir={folder}/run"],
        "old_value": ["run", base[1], f"--workdir={folder}/run", "--config.pairs.mode=hotter"],
        "no_mapping": [
            "run",
            "--config=quickstart",
            f"--workdir={folder}/run",
            "--config.select.quotas=code",
        ],
        **{
            name: ["run", f"--config={written(folder / f'{name}.py', text)}", f"--workdir={folder}/run"]
            for name, text in BROKEN_CONFIGS.items()
        },
        "no_boolean": [*base, "--config.annotate.both_orders=maybe"],
        "no_kind": [*base, "--config.pairs.mode=('degraded','padde')"],
        "no_whole_number": [*base, "--config.seed=two"],
        "weights_file": ["convert", f"{folder}/bare/config.json", f"{folder}/other"],
        "json_template": [
            *("judge", "show", f"--model={model}", f"--data={pairs}"),
            f"--chat_template={written(folder / 'template.json', '[]')}",
        ],
        "other_action": ["judge", "compare", "--method=swiss", f"--model={model}", f"--data={pairs}"],
        "crash_in_workdir": ["status", base[1], f"--workdir={crashing_workdir(folder)}"],
        "unknown_command": ["runn", *base[1:]],
        "short_mesh": [
            "evaluate",
            f"--model={gguf}",
            f"--out={folder}/mesh/result",
            "--data=x",
            "--mesh=1,8",
        ],
        "odd_mesh": ["convert", str(model), f"{folder}/mesh/model", "--mesh=1,one,8"],
        "no_config": ["run", f"--workdir={folder}/run"],
        "no_workdir": ["run", f"--config={config}"],
        "no_benchmark": [*asked, f"--out={folder}/r.jsonl"],
        "both_kinds": [*asked, f"--out={folder}/r.jsonl", "--benchmark=llmbar", "--data=mine.jsonl"],
        "no_out": [*asked, "--data=mine.jsonl"],
        "other_benchmark": [*asked, f"--out={folder}/r.jsonl", "--benchmark=llmbars"],
        "help": ["help"],
        "help_of_a_command": ["evaluate", "--help"],
        **{
            f"mode_{form}": ["status", f"--config={name}", f"--config.pairs.mode={value}", *untouched]
            for form, (name, value) in MODES.items()
        },
        "status": ["status", base[1], f"--workdir={folder}/untouched"],
        "home": ["status", base[1], "--workdir=~/no-such-run"],
        "brackets": ["status", base[1], f"--workdir={folder}/a[/b][red]"],
    }


# Name of a mistake: what its line on stderr names.
EXPECTED = {
    "empty": "empty.jsonl",
    "broken": "broken.jsonl, line 3",
    "textless": "textless.jsonl, line 2",
    "absent": "absent.jsonl",
    "weightless": "bare",
    "truncated": "cut.gguf",
    "modelless": "no-such-model",
    "bucket": "--workdir gs://bucket/run",
    "bucket_model": "model gs://bucket/model",
    "bucket_prompt": "prompt file gs://bucket/prompt.toml",
    "bucket_out": "--out gs://bucket/r.jsonl",
    "bucket_target": "target folder gs://bucket/model",
    "out_is_a_folder": "--out ",
    "below_a_file": "cut.gguf/run",
    "templateless": "absent.jinja: no such file",
    "promptless": "absent.toml",
    "impossible": "iterations",
    "unknown_field": """--config has no field 'smaples' (did you mean "samples"?): docs/CONFIG.md""",
    "unknown_section": "--config has no field 'sft'",
    "renamed_section": "--config.pairs.hotter is now --config.pairs.high_temperature",
    "renamed_field": "--config.decode.columns is now --config.decode.suffix_chunk",
    # The file of the configuration does not set it.
    "left_out_field": 'train.choose_by must be one of "accuracy", "accuracy_pooled", "worst_kind", not',
    "same_files": "pairs.jsonl, line 1",
    "ill_typed": "flag --config.annotate.samples=three",
    "configless": "absent.py",
    "wrong_redo": "--redo: no stage 'anotate'",
    "too_early": "select",
    "mesh": "mesh",
    "other_benchmark": "flag --benchmark=llmbars",
    "out_below_a_file": "cut.gguf is a file, not a folder",
    "target_is_a_file": "cut.gguf is a file, not a folder",
    "url": "https://x.y/p.jsonl: a URL",
    "shipped_name": "quikstart: there is no such file; shipped configurations are company_data",
    "old_value": "the value 'hotter' of pairs.mode is now 'high_temperature'",
    "no_mapping": "--config.select.quotas: expected a mapping",
    "syntax": "syntax.py, line 2: invalid syntax",
    "import_error": "import_error.py, line 1: ModuleNotFoundError: No module named 'nothing_of_this_name'",
    "type_error": "type_error.py, line 3: TypeError: ",
    "no_function": "no_function.py: defines no function get_config",
    "no_config_dict": "no_config_dict.py: get_config returns a dict, not a ConfigDict",
    "no_boolean": "--config.annotate.both_orders must be True or False, not 'maybe'",
    "no_kind": 'pairs.mode must be one of "modified", "modified_one_call", ',
    "no_whole_number": "--config.seed=two",
    "weights_file": "give the folder",
    "json_template": "template.json: JSON without a text",
    "old_flag": "--kept is now --acceptance_rate",
}


@pytest.fixture(scope="module")
def ends(
    ste: Any, smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[int, str, str]]:
    """Returns (code, output, errors) of every case by name."""
    folder = tmp_path_factory.mktemp("cli")
    todo = written(folder / "cases.json", json.dumps(cases(folder, ste.config, smollm2_path)))
    (folder / "out").mkdir()
    command = [sys.executable, "-c", _FORK, str(todo), str(folder / "out")]
    environment = os.environ | {"COLUMNS": "160"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr
    codes = {name: int(code) for name, code in map(str.split, done.stdout.splitlines())}

    assert {path.name for path in (folder / "odd").iterdir()} == {"select", "logs"}

    def end(name: str) -> tuple[int, str, str]:
        out, err = ((folder / "out" / f"{name}.{number}").read_text() for number in (1, 2))
        return codes[name], out, err

    return end


@pytest.mark.parametrize("name", EXPECTED)
def test_a_mistake_ends_with_one_clear_line(ends: Callable[[str], tuple[int, str, str]], name: str) -> None:
    code, out, err = ends(name)
    assert code == 1
    assert out == ""
    assert EXPECTED[name] in err
    assert err.startswith("ste: ")
    assert err.count("\n") == 1
    assert "Error:" not in err or name in BROKEN_CONFIGS
    assert "traceback" not in err


@pytest.mark.parametrize(
    ("name", "kind", "folder"),
    [
        ("crash", "LookupError: the first line", "ste-logs"),
        ("crash_in_workdir", "NotADirectoryError: ", "odd/logs"),
    ],
)
def test_an_unexpected_error_is_one_line_and_a_log_file(
    ends: Callable[[str], tuple[int, str, str]], name: str, kind: str, folder: str
) -> None:
    code, _, err = ends(name)
    *progress, line = err.splitlines()
    assert code == 1
    assert all("rec/s]" in text for text in progress if text)  # the progress bar, and nothing else
    assert line.startswith(f"ste: {kind}")
    log = Path(err.rpartition("the full traceback is in ")[2].rstrip(")\n"))
    assert str(log.parent).endswith(folder)
    assert log.name.endswith("-process0.log")
    text = log.read_text()
    assert text.count("Traceback (most recent call last)") == 1
    assert kind.rstrip(" (") in text
    assert "command: ['ste'," in text.splitlines()[0]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("unknown_command", "ste: 'runn' is not a command"),
        ("no_config", "ste: --config and --workdir are required"),
        ("short_mesh", "ste: --mesh takes three whole numbers, such as 1,-1,8, not 1,8"),
        ("odd_mesh", "ste: --mesh takes three whole numbers, such as 1,-1,8, not 1,one,8"),
        ("no_workdir", "ste: --config and --workdir are required"),
        ("hyphens", "ste: --price_per_chip_hour takes numbers: could not convert string to float: 'dear'"),
        ("other_action", "ste: --method is a flag of ste judge rank"),
        ("no_benchmark", "ste: evaluate needs either --benchmark or --data"),
        ("both_kinds", "ste: evaluate needs either --benchmark or --data"),
        ("no_out", "ste: evaluate needs --model and --out (or --config and --workdir)"),
    ],
)
def test_a_wrong_call_points_to_the_help(
    ends: Callable[[str], tuple[int, str, str]], name: str, line: str
) -> None:
    code, out, err = ends(name)
    assert (code, out) == (1, "")
    assert err.startswith(f"{line}; ")
    assert re.search(r"`ste (help|\w+ --help)`", err)
    assert err.count("\n") == 1


def test_help_needs_nothing(ends: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, err = ends("help")
    assert (code, err) == (0, "")
    for word in ("run", "select", "pairs", "annotate", "train", "evaluate", "status", "report", "--redo"):
        assert word in out


def test_help_of_a_command_lists_its_flags(ends: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, err = ends("help_of_a_command")
    assert (code, err) == (0, "")
    assert out.startswith("usage: ste evaluate")
    assert "ste preflight" not in out
    for flag in ("--max_new_tokens:", "--policy:", "--mesh:", "--workdir:"):
        assert flag in out


def test_the_status_before_anything_is_done(ends: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, _ = ends("status")
    assert code == 0
    assert out.count("pending") == 9


@pytest.mark.parametrize("form", MODES)
def test_a_mode_may_be_replaced_in_any_form(ends: Callable[[str], tuple[int, str, str]], form: str) -> None:
    code, out, err = ends(f"mode_{form}")
    assert code == 0, err
    assert "pending" in out


def test_the_status_names_its_workdir_as_it_is(ends: Callable[[str], tuple[int, str, str]]) -> None:
    _, out, err = ends("home")
    assert str(Path.home() / "no-such-run") in out, err
    _, out, err = ends("brackets")
    assert "/a[/b][red]" in out.replace("\n", ""), err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in MODULES)])
def test_help_and_version_load_no_jax(arguments: list[str]) -> None:
    program = (
        "import sys; from ste_jax.cli import main; main(); "
        "print(sorted({'jax', 'scipy', 'transformers'} & sys.modules.keys()), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "[]\n"
    assert done.stdout.startswith("usage: ste ") != (done.stdout == f"ste {ste_jax.__version__}\n")


@pytest.mark.parametrize(
    ("given", "normalized"),
    [
        (["--price-per-chip-hour=-1"], ["--price_per_chip_hour=-1"]),
        (["--min-disk-gb", "3", "--no-json"], ["--min_disk_gb", "3", "--no_json"]),
        (["--config.train_mesh=(1,-1,1)"], ["--config.train_mesh=(1,-1,1)"]),
        (["a-file", "--", "--a-b"], ["a-file", "--", "--a-b"]),
        (["--config=some-file.py:v5p-32"], ["--config=some-file.py:v5p-32"]),
        (["--config=quickstart:runlocal"], [f"--config={CONFIGS / 'quickstart.py'}:runlocal"]),
        (["--config", "quickstart"], ["--config", f"{CONFIGS / 'quickstart.py'}"]),
    ],
)
def test_flags_have_one_spelling(given: list[str], normalized: list[str]) -> None:
    assert normalize(["ste", *given]) == ["ste", *normalized]


def test_a_renamed_flag_is_refused() -> None:
    with raises("flag_renamed", "--acceptance_rate"):
        normalize(["ste", "plan", "--kept=0.5"])


def test_a_report_is_written_while_a_run_holds_its_workdir(ste: Any, tmp_path: Path) -> None:
    with filelock.FileLock(tmp_path / ".lock"):
        end = ste.run("report", tmp_path)
    assert end.code == 0, end.err
    assert "tiny" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "summary.json").read_text())["title"] == "tiny"
    missing = ste.run("report", tmp_path / "absent")
    assert (missing.code, missing.err.count("\n")) == (1, 1)
    assert str(tmp_path / "absent") in missing.err
    assert not (tmp_path / "absent").exists()


def test_every_command_is_in_the_help() -> None:
    text = usage()
    for command in MODULES:
        assert re.search(rf"\b{command}\b", text), command
        assert re.search(rf"^  (\w+ \| )*{command}\b", usage_of(command), re.MULTILINE), command


def test_fields_with_several_forms_are_those_that_the_flags_know() -> None:
    several = {
        (section.name, field.name)
        for section in dataclasses.fields(RunConfig)
        if (kind := section_of(section.type)) is not None
        for field in dataclasses.fields(kind)
        if any(typing.get_origin(option) is dict for option in typing.get_args(field.type))
    }
    assert several == SEVERAL_FORMS


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("ste sta", ["stats", "status"]),
        ("ste stats --js", ["--json"]),
        ("ste run --config.annotate.max_pa", ["--config.annotate.max_pairs="]),
    ],
)
def test_a_shell_completes(typed: str, expected: list[str]) -> None:
    words = typed.split()
    program = (
        f'ste() {{ "{sys.executable}" -m ste_jax "$@"; }}\n{completion.script()}\n'
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _ste; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert sorted(done.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_of_a_shell_is_printed(ste: Any, shell: str) -> None:
    end = ste.run_bare("completion", shell)
    assert end.code == 0
    assert end.out.endswith(completion.script())


def test_ctrl_c_ends_without_a_fault(ste: Any, tmp_path: Path) -> None:
    """While a program is compiled, whose thread outlives the interpreter."""
    process = ste.begin("run", tmp_path / "run")
    deadline = time.monotonic() + 200
    while not (tmp_path / "run/select/labels/STARTED.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    end = ended(process)
    assert end.code == 130
    assert end.err.splitlines()[-1].startswith("ste: interrupted; what was finished is safe")
    assert "Fatal Python error" not in end.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--config=quickstart", "--workdir=w", "--config.model=no-such-model"],
        [
            "run",
            "--config=quickstart",
            "--workdir=w",
            "--config.model={model}",
            "--config.instructions=no.csv",
        ],
        ["run", "--config=quickstart", "--workdir=w", "--config.train.objective=sfd"],
        ["evaluate", "--model=no-such-model", "--data=x.jsonl", "--out=y.jsonl"],
    ],
)
def test_a_mistake_is_found_before_the_libraries_of_models_are_loaded(
    arguments: list[str], smollm2_path: Path, tmp_path: Path
) -> None:
    program = (
        "import sys\nfrom ste_jax.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'flax', 'transformers', 'orbax', 'scipy'} & sys.modules.keys()))"
    )
    given = [argument.format(model=smollm2_path) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-c", program, *given], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.startswith("ste: ")
    assert done.stdout == "[]\n"
