"""Reads damaged files with every reader, many thousands of each, and reports how each reader ends.

    python scripts/fuzz.py --examples=20000 --seed=0 --out=fuzz.jsonl [--readers=gguf,card]

A reader may return, or raise a user error that names the file; anything else is a failure, also a crash of
the process, more than 10 s of CPU, or more memory than the limit. The inputs of a chunk follow from the seed.
The same command continues after an interruption: `--out` holds a line for each finished chunk.
"""

import argparse
import base64
import collections
import contextlib
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CHUNK = 500
MEMORY = 8 * 2**30  # bytes of address space beyond that of the loaded libraries


def main() -> None:
    """Runs what is left, and prints a line for each reader; fails if a reader failed."""
    arguments = parser().parse_args()
    if arguments.child:
        run_child(json.load(sys.stdin), arguments.seed, Path(arguments.out))
        return
    names = arguments.readers.split(",") if arguments.readers else reader_names()
    fuzz(names, arguments.examples, arguments.seed, Path(arguments.out))
    lines = finished(Path(arguments.out), arguments.seed)
    failed = 0
    for name in names:
        found = [line for (reader, _), line in lines.items() if reader == name]
        failures = [line["failure"] for line in found if line["failure"]]
        failed += bool(failures)
        print(f"{name:32} {sum(line['tries'] for line in found):7} tries, {len(failures)} chunks failed")
        for failure in failures[:1]:
            print(f"    {failure['error']}\n    input (base64): {failure['input'][:400]}")
    sys.exit(1 if failed else 0)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=20_000, help="inputs of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="fuzz.jsonl", help="file of finished chunks")
    parser.add_argument("--readers", default="", help="names, separated by commas; default: all")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


def fuzz(names: list[str], examples: int, seed: int, out: Path) -> None:
    """Runs the chunks of some readers that `out` does not hold, in a process that may crash."""
    sizes = [min(CHUNK, examples - first) for first in range(0, examples, CHUNK)]
    chunks = [(name, number, size) for name in names for number, size in enumerate(sizes)]
    while True:
        done = finished(out, seed)
        todo = [chunk for chunk in chunks if chunk[:2] not in done]
        if not todo:
            return
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--child", f"--seed={seed}", f"--out={out}"]
            environment = os.environ | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "FUZZ_FOLDER": folder}
            code = subprocess.run(command, env=environment, input=json.dumps(todo).encode()).returncode
            left = [chunk for chunk in todo if chunk[:2] not in finished(out, seed)]
            if code and left:
                current = Path(folder) / "current"
                content = current.read_bytes() if current.exists() else b""
                failure = {"error": f"the process ended with {code}", "input": encoded(content)}
                record(out, seed, *left[0][:2], 0, {}, failure)


def finished(out: Path, seed: int) -> dict[tuple[str, int], dict[str, Any]]:
    """Returns the finished chunks of a seed by reader and number, without a line that was cut off."""
    found = {}
    for line in out.read_text().splitlines() if out.exists() else ():
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if value["seed"] == seed:
                found[value["reader"], value["chunk"]] = value
    return found


def record(
    out: Path, seed: int, name: str, chunk: int, tries: int, outcomes: dict[str, int], failure: Any
) -> None:
    """Appends a finished chunk to `out`."""
    value = {"seed": seed, "reader": name, "chunk": chunk, "tries": tries, "outcomes": outcomes}
    with out.open("a") as file:
        file.write(json.dumps({**value, "failure": failure}) + "\n")


def encoded(content: bytes) -> str:
    """Returns an input as text."""
    return base64.b64encode(content).decode()


# ---- in a process of its own ----


def readers() -> tuple[dict[str, Any], Any]:
    """Returns the readers by name, and the function that lets one of them read a content."""
    sys.path.insert(0, str(ROOT))
    from tests.fuzz.fuzz_readers import READERS, check

    logging.disable(logging.WARNING)
    return READERS, check


def reader_names() -> list[str]:
    """Returns the names of all readers."""
    return list(readers()[0])


def run_child(chunks: list[tuple[str, int, int]], seed: int, out: Path) -> None:
    """Runs chunks, (reader, number, inputs) each, and records them."""
    found, check = readers()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    current = Path(os.environ["FUZZ_FOLDER"]) / "current"
    for name, number, size in chunks:
        tries, outcomes, failure = run_chunk(found[name], check, seed, number, size, current)
        record(out, seed, name, number, tries, outcomes, failure)


def run_chunk(
    reader: Any, check: Any, seed: int, chunk: int, examples: int, current: Path
) -> tuple[int, dict[str, int], dict[str, str] | None]:
    """Returns the number of tries, the outcomes by name, and the smallest input of a failure."""
    import hypothesis

    outcomes: collections.Counter[str] = collections.Counter()

    @hypothesis.seed(seed * 1_000_003 + chunk)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
    )
    @hypothesis.given(reader.contents)
    def try_content(content: bytes) -> None:
        current.write_bytes(content)
        outcomes["failed"] += 1
        outcome = check(reader, content)
        outcomes["failed"] -= 1
        outcomes[outcome] += 1

    failure = None
    try:
        try_content()
    except Exception as error:
        # The last input that hypothesis tries is the smallest one that it found.
        failure = {"error": str(error)[:500], "input": encoded(current.read_bytes())}
    return outcomes.total(), dict(+outcomes), failure


if __name__ == "__main__":
    main()
