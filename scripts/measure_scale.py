"""Measures the figures of docs/SCALE.md: bytes per record and index entry, and peak memory of record sets.

  python scripts/measure_scale.py [--requests=2000] [--folder=/tmp]

It uses the real classes on synthetic judgments of the mean lengths of plan/phases.py (1,650 prompt tokens,
700 tokens per judgment, 500 per response) and needs no model. Each measurement runs in a separate process.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

from etils import epath

from ste_jax.decode.protocol import Request
from ste_jax.randomness import sample_keys
from ste_jax.records import Comparison, Judgment, TrainingExample
from ste_jax.storage.files import canonical_json
from ste_jax.storage.journal import Journal, encode_line
from ste_jax.storage.readers import iter_records
from ste_jax.storage.record_set import RecordSet

SAMPLES = 15
PROMPT_TOKENS, JUDGMENT_TOKENS, RESPONSE_TOKENS = 1650, 700, 500
_WORDS = ("the", "response", "explains", "why", "water", "freezes", "at", "zero", "degrees", "and", "is")


def text(draw: random.Random, tokens: int) -> str:
    """Returns a text of about this many tokens, at four bytes each as in English."""
    words: list[str] = []
    length = 0
    while length < 4 * tokens:
        words.append(draw.choice(_WORDS))
        length += len(words[-1]) + 1
    return " ".join(words)


def token_ids(draw: random.Random, count: int) -> list[int]:
    """Returns ids of a vocabulary of 128k."""
    return [draw.randrange(128_000) for _ in range(count)]


def judgments(number: int) -> list[Judgment]:
    """Returns the judgments of one request."""
    draw = random.Random(number)
    return [
        Judgment(
            id=f"instruction-{number:07d}/as_given/{sample}",
            pair_id=f"instruction-{number:07d}",
            order="as_given",
            sample=sample,
            text=text(draw, JUDGMENT_TOKENS),
            tokens=token_ids(draw, JUDGMENT_TOKENS),
            verdict="A",
            status="parsed",
            forced=False,
            correct=True,
        )
        for sample in range(SAMPLES)
    ]


def request_id(number: int) -> str:
    """Returns the id of a request."""
    return f"instruction-{number:07d}/as_given"


def peak() -> int:
    """Returns the peak resident bytes of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def growth(make: Callable[[], object], count: int) -> float:
    """Returns the bytes that the result of `make` takes in memory, divided by `count`."""
    tracemalloc.start()
    made = make()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del made
    return size / count


# ---- one measurement each, printed as JSON ----


def records(_: int, __: Path) -> dict[str, float]:
    """Measures single records in memory and on disk."""

    def comparison(number: int) -> Comparison:
        draw = random.Random(number)
        instruction = PROMPT_TOKENS - 2 * RESPONSE_TOKENS - 300  # the rest is the text of the judge prompt
        return Comparison(
            id=f"instruction-{number:07d}",
            prompt_id=f"instruction-{number:07d}",
            instruction=text(draw, instruction),
            response_a=text(draw, RESPONSE_TOKENS),
            response_b=text(draw, RESPONSE_TOKENS),
            label="A",
            subset="modified",
            metadata={
                "generator": "model",
                "modified_instruction": text(draw, instruction),
                "num_tokens_a": RESPONSE_TOKENS,
                "num_tokens_b": RESPONSE_TOKENS,
            },
        )

    def request(number: int) -> Request:
        prompt = tuple(token_ids(random.Random(number), PROMPT_TOKENS))
        return Request(
            request_id(number), prompt, sample_keys(0, "annotate/1", str(number), SAMPLES), JUDGMENT_TOKENS
        )

    def example(number: int) -> TrainingExample:
        draw = random.Random(number)
        return TrainingExample(
            id=f"instruction-{number:07d}/as_given/0",
            pair_id=f"instruction-{number:07d}",
            order="as_given",
            prompt=token_ids(draw, PROMPT_TOKENS),
            target=token_ids(draw, JUDGMENT_TOKENS),
        )

    def lines(number: int) -> list[str]:
        return [canonical_json(record.to_json()) for record in judgments(number)]

    started = time.process_time()
    journal = [encode_line(request_id(number), lines(number)) for number in range(100)]
    seconds = time.process_time() - started
    started = time.process_time()
    for number in range(100):
        judgments(number)
    seconds -= time.process_time() - started
    return {
        "judgment_memory": growth(lambda: [judgments(i) for i in range(50)], 50 * SAMPLES),
        "judgment_disk": sum(map(len, journal)) / 100 / SAMPLES,
        "judgment_encode_us": seconds / 100 / SAMPLES * 1e6,
        "comparison_memory": growth(lambda: [comparison(i) for i in range(200)], 200),
        "comparison_disk": len(canonical_json(comparison(0).to_json())),
        "example_memory": growth(lambda: [example(i) for i in range(200)], 200),
        "example_disk": len(canonical_json(example(0).to_json())),
        "request_memory": growth(lambda: [request(i) for i in range(200)], 200),
    }


def index(count: int, folder: Path) -> dict[str, float]:
    """Measures the index of a journal: bytes for each request."""
    count *= 100
    journal = Journal(epath.Path(folder), writes=True)
    for number in range(count):
        journal.append(request_id(number), [])
        if number % 10_000 == 0:
            journal.flush()
    journal.flush()
    del journal
    again = Journal(epath.Path(folder), writes=True)
    started = time.monotonic()
    again.load()
    seconds = time.monotonic() - started
    other = Journal(epath.Path(folder), writes=True)
    size = {
        "entry_memory": growth(other.load, count),
        "located_memory": growth(lambda: again.locate(map(request_id, range(count))), count),
    }
    return {**size, "load_us": seconds / count * 1e6}


def writing(count: int, folder: Path) -> dict[str, float]:
    """Measures adding the judgments of `count` requests and finishing the set."""
    records = RecordSet(epath.Path(folder), Judgment, {}, divided=True)
    started = time.monotonic()
    for number in range(count):
        records.add(request_id(number), judgments(number))
    added = time.monotonic()
    records.finish(map(request_id, range(count)), {})
    size = sum(path.stat().st_size for path in folder.glob("part-*"))
    return {
        "peak": peak(),
        "disk": size,
        "add_us": (added - started) / count / SAMPLES * 1e6,
        "finish_us": (time.monotonic() - added) / count / SAMPLES * 1e6,
    }


def reading(count: int, folder: Path) -> dict[str, float]:
    """Measures streaming the records that `writing` left."""
    started = time.monotonic()
    found: Iterator[Judgment] = iter_records(epath.Path(folder), Judgment)
    assert sum(judgment.correct for judgment in found) == count * SAMPLES
    return {"peak": peak(), "read_us": (time.monotonic() - started) / count / SAMPLES * 1e6}


MEASUREMENTS = {function.__name__: function for function in (records, index, writing, reading)}


def run(name: str, count: int, folder: Path) -> dict[str, float]:
    """Runs a measurement in a process of its own, and returns its numbers."""
    command = [sys.executable, __file__, f"--measure={name}", f"--requests={count}", f"--folder={folder}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Prints all numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--requests", type=int, default=2000, help="requests of 15 judgments in the larger set"
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="folder in which the record sets are created and deleted"
    )
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(MEASUREMENTS[arguments.measure](arguments.requests, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        print("one object:")
        for name, value in run("records", 0, folder).items():
            print(f"  {name:<22}{value:>14,.0f}")
        print("journal index, bytes for each request:")
        for name, value in run("index", arguments.requests, folder / "index").items():
            print(f"  {name:<22}{value:>14,.1f}")
        for count in (arguments.requests // 2, arguments.requests):
            print(f"record set of {count * SAMPLES:,} judgments:")
            for name in ("writing", "reading"):
                for key, value in run(name, count, folder / str(count)).items():
                    value, unit = (value / 2**20, " MiB") if key in ("peak", "disk") else (value, "")
                    print(f"  {name + ' ' + key:<22}{value:>14,.1f}{unit}")


if __name__ == "__main__":
    main()
