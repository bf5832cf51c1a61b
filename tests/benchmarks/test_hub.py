"""A data set read by name, from a server on this machine that answers as the hub does."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "nvidia/HelpSteer2"
ROWS = [
    {"prompt": "Name a river.", "response": answer, "helpfulness": score}
    for answer, score in (("The Rhine.", 4), ("Rivers are wet.", 1))
]
FILES = {
    "validation.jsonl.gz": gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()),
    "train.jsonl.gz": b"must not be requested",
}
READ = """
from ste_jax.benchmarks.catalogue import load
b = load("helpsteer2")
(item,) = b.items
print(b.source, b.revision, item.response_a if item.label == "A" else item.response_b, sep="|")
"""


class _Hub(BaseHTTPRequestHandler):
    requested: list[str]

    def do_GET(self) -> None:
        self.requested.append(self.path)
        path = self.path.partition("?")[0]
        file = FILES.get(path.rpartition("/")[2])
        if path == f"/api/datasets/{NAME}/revision/main":
            self._answer_json(
                {"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            )
        elif path == f"/api/datasets/{NAME}/tree/{COMMIT}":
            entry = {"type": "file", "oid": COMMIT}
            self._answer_json([{**entry, "path": k, "size": len(v)} for k, v in FILES.items()])
        elif file is not None and path.startswith(f"/datasets/{NAME}/resolve/{COMMIT}/"):
            self._answer(file, "application/gzip")
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer_json(self, value: object) -> None:
        self._answer(json.dumps(value).encode(), "application/json")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "ETag": f'"{hash(body):x}"',
            "X-Repo-Commit": COMMIT,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """The address of a running hub, and the list of requested paths."""
    requested: list[str] = []
    handler = type("Hub", (_Hub,), {"requested": requested})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requested
        server.shutdown()


def read(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")
    }
    environment = {**kept, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    command = [sys.executable, "-c", READ]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_data_set_of_the_hub_is_read_by_name(hub: tuple[str, list[str]], tmp_path: Path):
    address, requested = hub
    first = read(tmp_path, HF_ENDPOINT=address)
    assert first.stdout == f"{NAME}|{COMMIT}|The Rhine.\n", first.stderr
    assert not any("train" in path for path in requested)
    again = read(tmp_path, HF_HUB_OFFLINE="1")
    assert again.stdout == first.stdout, again.stderr


def test_a_failed_download_is_one_line(hub: tuple[str, list[str]], tmp_path: Path):
    address, _ = hub
    failed = read(tmp_path, HF_ENDPOINT=f"{address}/nowhere")
    assert failed.returncode != 0
    assert f"SteError: {NAME}: " in failed.stderr
    assert "--path" in failed.stderr
