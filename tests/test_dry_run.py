"""`ste run --dry_run`: what a run would do, without writing anything."""

import re
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def shown(ste: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a dry run prints."""
    workdir = tmp_path_factory.mktemp("dry") / "run"
    end = ste.run("run", workdir, "--dry-run")
    assert end.code == 0, end.err
    assert not workdir.exists()
    return end.out


def row(text: str, name: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.split()[:1] == [name])
    return line.split()[1:]


def test_the_funnel_of_the_instructions(shown: str) -> None:
    assert row(shown, "read") == ["14"]
    assert re.search(r"selected, at most +12\b", shown)


def test_the_calls_of_the_stages(shown: str) -> None:
    # 12 instructions, of which 5 pairs are held out; two iterations; 3 samples of up to 6 tokens.
    assert "7 pairs to train on, at most" in shown
    prompts, samples, *_ = row(shown, "annotate")
    assert (prompts, samples) == ("28", "3")
    prompts, samples, *_ = row(shown, "evaluate")
    assert (prompts, samples) == ("18", "1")
    assert re.search(r"\d (s|min)", row(shown, "total")[-2] + " " + row(shown, "total")[-1])


def test_the_prompt_of_the_judge(shown: str) -> None:
    assert "Explain to a child how" in shown
    assert "<|im_start|>user" in shown


def test_a_speed_is_measured(shown: str) -> None:
    match = re.search(r"measured: ([\d,]+) tokens read and ([\d,]+) generated per second", shown)
    assert match
    assert all(int(number.replace(",", "")) > 0 for number in match.groups())


def test_the_chip_hours_of_a_slice_need_no_probe(ste: Any, tmp_path: Path) -> None:
    end = ste.run(
        "run",
        tmp_path / "run",
        "--dry-run",
        "--topology=v6e-8",
        "--config.mesh=(1,-1,1)",
        "--config.train_mesh=(1,-1,1)",
    )
    assert end.code == 0, end.err
    assert "expected on v6e-8" in end.out
    assert "measured" not in end.out
    assert float(end.out.split("total")[-1].split()[0].replace(",", "")) >= 0.0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "flags"), [("pairs", ["--dry-run"]), ("run", ["--dry-run", "--topology=v6e-8,v6e-16"])]
)
def test_it_belongs_to_run_and_to_one_slice(ste: Any, tmp_path: Path, command: str, flags: list[str]) -> None:
    end = ste.run(command, tmp_path / "run", *flags)
    assert end.code == 1
    assert "--dry_run belongs to ste run" in end.err


def test_lengths_are_assumed_within_the_limits_of_the_configuration(ste: Any, tmp_path: Path) -> None:
    flags = ("--dry-run", "--topology=v6e-8", "--config.mesh=(1,-1,1)", "--config.train_mesh=(1,-1,1)")
    end = ste.run("run", tmp_path / "run", *flags, "--config.pairs.max_response_tokens=5")
    assert end.code == 0, end.err
    made = {(line.split() or [""])[0]: line.split() for line in end.out.splitlines() if len(line.split()) > 4}
    # 12 answers of 5 tokens; 28 prompts with 3 samples of 6 tokens.
    assert made["pairs"][4] == "60"
    assert made["annotate"][4] == "504"
