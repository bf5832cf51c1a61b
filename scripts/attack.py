"""Repeats kills, faults, hostile texts and damaged inputs, and prints the table of docs/RELIABILITY.md.

    python scripts/attack.py --kills=100 --faults=1000 --inputs=20000 --forgeries=5000 --out=attack.jsonl

All attacks follow from `--seed`. The same command continues after an interruption, and larger numbers extend
finished attacks: `--out` holds a line for each try. A kill takes two starts of a command, about ten seconds;
a thousand of anything else takes a minute or less.
"""

import argparse
import contextlib
import errno
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import fuzz  # noqa: E402

from tests.fuzz import forgeries  # noqa: E402

# What is promised, and how it is attacked, by attack.
PROMISES = {
    "kill": ("A killed command, started again, ends with the same bytes", "SIGKILL at a random moment"),
    "term": ("SIGTERM ends a command with code 75 or 0, and nothing is lost", "SIGTERM at a random moment"),
    "disk": (
        "A command that found the disk full goes on when there is room",
        "writes fail, cut off",
    ),
    "damage": ("Damage on disk is named and never used", "flipped bits in journals, parts and outputs"),
    "forgery": ("Texts cannot imitate the structure of a judge prompt", "disguised delimiters and verdicts"),
    "input": ("Every file is read or refused by name", "damaged files of all readers"),
}
IDS = [f"r{i}" for i in range(6)]


def main() -> None:
    """Runs what is left of all attacks, and prints the table."""
    arguments = _parser().parse_args()
    logging.disable(logging.WARNING)  # the damage is named, many times
    out, seed = Path(arguments.out).absolute(), arguments.seed
    attacks: dict[str, tuple[int, Callable[[int, int], str | None]]] = {
        "forgery": (arguments.forgeries, forgeries.attack),
        "disk": (arguments.faults, full_disk),
        "damage": (arguments.faults, damage),
    }
    with tempfile.TemporaryDirectory() as folder:
        if arguments.kills:
            commands = Commands(Path(folder))
            attacks["kill"] = (-(-arguments.kills // 2), commands.kill)
            attacks["term"] = (arguments.kills // 2, commands.terminate)
        for name, (tries, attack) in attacks.items():
            _repeat(name, tries, attack, out, seed)
    print(_table(_results(out, seed) | _inputs(arguments.inputs, seed, out.with_suffix(".inputs.jsonl"))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=0, help="kills of commands")
    parser.add_argument("--faults", type=int, default=300, help="full disks, and as many damaged files")
    parser.add_argument("--inputs", type=int, default=0, help="damaged inputs in all")
    parser.add_argument("--forgeries", type=int, default=300, help="hostile texts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="attack.jsonl", help="file of finished tries")
    return parser


def _repeat(name: str, tries: int, attack: Callable[[int, int], str | None], out: Path, seed: int) -> None:
    """Runs the tries of an attack that `out` does not hold."""
    done = {line["number"] for line in _lines(out, seed) if line["attack"] == name}
    for number in sorted(set(range(tries)) - done):
        failure = attack(seed, number)
        with out.open("a") as file:
            line = {"seed": seed, "attack": name, "number": number, "failure": failure}
            file.write(json.dumps(line) + "\n")


def _lines(out: Path, seed: int) -> list[dict[str, Any]]:
    lines = []
    for line in out.read_text().splitlines() if out.exists() else ():
        with contextlib.suppress(ValueError):  # a line that was cut off
            value = json.loads(line)
            lines += [value] if value["seed"] == seed else []
    return lines


def _results(out: Path, seed: int) -> dict[str, tuple[int, list[str]]]:
    """Returns the number of tries and the failures of each attack."""
    found: dict[str, tuple[int, list[str]]] = {}
    for line in _lines(out, seed):
        tries, failures = found.get(line["attack"], (0, []))
        found[line["attack"]] = tries + 1, failures + [line["failure"]] * bool(line["failure"])
    return found


def _inputs(inputs: int, seed: int, out: Path) -> dict[str, tuple[int, list[str]]]:
    """Runs the damaged inputs, in equal shares of all readers, and returns their tries and failures."""
    if not inputs:
        return {}
    names = fuzz.reader_names()
    fuzz.fuzz(names, -(-inputs // len(names)), seed, out)
    chunks = fuzz.finished(out, seed).values()
    failures = [f"{c['reader']}: {c['failure']['error']}" for c in chunks if c["failure"]]
    return {"input": (sum(c["tries"] for c in chunks), failures)}


def _table(results: dict[str, tuple[int, list[str]]]) -> str:
    lines = ["| promise | attack | tries | failures |", "|---|---|---|---|"]
    for name, (promise, how) in PROMISES.items():
        tries, failures = results.get(name, (0, []))
        lines.append(f"| {promise} | {how} | {tries:,} | {len(failures):,} |")
    for name, (_, failures) in results.items():
        lines += [f"{name} failed: {failure}" for failure in failures]
    return "\n".join(lines)


def _folder() -> tempfile.TemporaryDirectory[str]:
    """Returns a new folder in memory: a disk would be slower and show nothing more."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


# ---- faults ------------------------------------------------------------------


def _make(path: Path) -> None:
    """Makes or continues an output of a few records."""
    from ste_jax.storage.jsonl_output import JsonlOutput

    with JsonlOutput(path, {"model": "m", "prompt": "x" * 500}, schema="comparisons") as output:
        for id_ in IDS:
            if not output.is_done(id_):
                output.add(id_, [{"id": id_, "text": "t" * 50}], prompt_tokens=5, generated_tokens=2)
                output.flush()
        output.finish(IDS)
        list(output)


def full_disk(seed: int, number: int) -> str | None:
    """Makes an output on a disk that is full at random moments, until it succeeds."""
    draw = random.Random(f"disk/{seed}/{number}")

    def fail(file: Any) -> None:
        file.flush()
        if draw.random() < 0.3:
            os.ftruncate(file.fileno(), draw.randint(0, os.fstat(file.fileno()).st_size))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    modules = [f"ste_jax.storage.{name}.sync_file" for name in ("files", "journal", "jsonl_output")]
    with _folder() as folder:
        _make(Path(folder) / "whole.jsonl")
        path = Path(folder) / "out.jsonl"
        try:
            for _ in range(3):
                with contextlib.ExitStack() as patched, contextlib.suppress(OSError):
                    for name in modules:
                        patched.enter_context(mock.patch(name, fail))
                    _make(path)
            _make(path)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None if path.read_bytes() == (Path(folder) / "whole.jsonl").read_bytes() else "other bytes"


def damage(seed: int, number: int) -> str | None:
    """Flips bits of a record set or an output, finished or not, and reads or continues it."""
    from ste_jax.errors import SteError
    from tests.fuzz import fuzz_own

    draw = random.Random(f"damage/{seed}/{number}")
    start, proceed = draw.choice(
        [
            (fuzz_own.start_set, fuzz_own.continue_set),
            (fuzz_own.finish_set, fuzz_own.read_set),
            (_half, _whole),
            (_whole, _whole),
        ]
    )
    with _folder() as name, _folder() as other:
        for folder in (Path(name), Path(other)):
            start(folder)
        files = [p for p in sorted(Path(name).rglob("*")) if p.suffix in (".journal", ".jsonl")]
        file = draw.choice(files)
        content = bytearray(file.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(content)
        try:
            proceed(Path(name))
        except SteError as error:
            return None if file.name in str(error) else f"{file.name} is not named: {error}"
        proceed(Path(other))
        return None if _records(Path(name)) == _records(Path(other)) else f"{file.name}: other records"


def _half(folder: Path) -> None:
    from ste_jax.storage.jsonl_output import JsonlOutput

    output = JsonlOutput(folder / "out.jsonl", {"model": "m", "prompt": "x" * 500}, schema="comparisons")
    output.add("r1", [{"id": "r1", "text": "t" * 50}], prompt_tokens=5, generated_tokens=2)
    output.close()


def _whole(folder: Path) -> None:
    _make(folder / "out.jsonl")


def _records(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.rglob("*.jsonl"))]


# ---- kills -------------------------------------------------------------------


class Commands:
    """Two commands that can be killed and started again, and what they write undisturbed.

    Args:
      folder: folder for everything.
    """

    def __init__(self, folder: Path):
        from tests.fuzz import fuzz_models

        self._folder = folder
        (folder / "model").mkdir()
        fuzz_models.write_model(folder / "model", context=2048)
        pair = {"instruction": "Name a river.", "response_a": "Rhine", "response_b": "Rose", "label": "A"}
        rows = [json.dumps({**pair, "id": f"p{i}"}) + "\n" for i in range(24)]
        (folder / "pairs.jsonl").write_text("".join(rows))
        self._seconds, self._wanted = {}, {}
        for name in ("evaluate", "convert"):
            started = time.monotonic()
            process = self._start(name, folder / "undisturbed")
            assert process.wait() == 0, process.communicate()
            self._seconds[name] = time.monotonic() - started
            self._wanted[name] = self._written(name, folder / "undisturbed")

    def kill(self, seed: int, number: int) -> str | None:
        """Kills a command at a random moment."""
        return self._interrupt(seed, number, signal.SIGKILL, (-signal.SIGKILL, 0))

    def terminate(self, seed: int, number: int) -> str | None:
        """Sends SIGTERM to a command at a random moment, from 0.3 s after its start on."""
        return self._interrupt(seed, number, signal.SIGTERM, (75, 0))

    def _interrupt(self, seed: int, number: int, sign: signal.Signals, codes: tuple[int, ...]) -> str | None:
        draw = random.Random(f"{sign}/{seed}/{number}")
        name, folder = ("evaluate", "convert")[number % 2], self._folder / "attacked"
        shutil.rmtree(folder, ignore_errors=True)
        process = self._start(name, folder)
        assert process.stdout is not None
        process.stdout.read(1)
        time.sleep(0.3 + draw.random() * self._seconds[name])
        process.send_signal(sign)
        _, err = process.communicate()
        if process.returncode not in codes:
            return f"{name} ended with {process.returncode}: {err[-300:]!r}"
        again = self._start(name, folder)
        _, err = again.communicate()
        if again.returncode:
            return f"{name}, started again, ended with {again.returncode}: {err[-300:]!r}"
        return None if self._written(name, folder) == self._wanted[name] else f"{name}: other bytes"

    def _start(self, name: str, folder: Path) -> subprocess.Popen[bytes]:
        folder.mkdir(exist_ok=True)
        model, pairs = self._folder / "model", self._folder / "pairs.jsonl"
        flags = {
            "evaluate": [
                f"--model={model}",
                f"--data={pairs}",
                f"--out={folder}/r.jsonl",
                "--max_new_tokens=8",
            ],
            "convert": [str(model), str(folder / "m")],
        }[name]
        program = "import os; os.write(1, b'x'); from ste_jax.cli import main; main()"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", program, name, *flags]
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe)

    def _written(self, name: str, folder: Path) -> bytes:
        """Returns the result, or the card of the model, which holds the hashes of the weights."""
        return (folder / {"evaluate": "r.jsonl", "convert": "m/model.json"}[name]).read_bytes()


if __name__ == "__main__":
    main()
