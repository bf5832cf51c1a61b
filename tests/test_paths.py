from pathlib import Path

import pytest

from ste_jax.paths import local_path
from tests.errors import raises


def test_a_path_is_absolute_and_a_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert local_path("~/runs/a", "--workdir") == tmp_path / "home" / "runs" / "a"
    assert local_path("runs/a", "--workdir") == tmp_path / "runs" / "a"
    assert local_path(Path("/runs/~"), "--workdir") == Path("/runs/~")
    assert local_path("~nobody-of-this-name/a", "--workdir") == tmp_path / "~nobody-of-this-name" / "a"


@pytest.mark.parametrize("text", ["gs://bucket/run", "s3://bucket/run", "file:///runs"])
def test_a_bucket_url_is_refused(text: str) -> None:
    with raises("bucket_url", f"--out {text}"):
        local_path(text, "--out")
