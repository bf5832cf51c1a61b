"""Annotation of a part of the pairs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from etils import epath

from ste_jax.config import RunConfig
from ste_jax.records import Comparison
from ste_jax.stages import annotate
from ste_jax.stages.context import Context
from ste_jax.storage.success import require_success
from tests.stages.topic_pairs import topic_pairs


@pytest.fixture(scope="module")
def pairs() -> list[Comparison]:
    return topic_pairs(("bread", "bridges", "clouds", "clocks", "trees", "rivers"))


@pytest.fixture(scope="module")
def annotated(
    make_config: Callable[..., RunConfig],
    tiny_model: Path,
    pairs: list[Comparison],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[set[str], str]]:
    """Annotates with a number of pairs and returns the judged pairs and the hash of the judgments."""

    def work(max_pairs: int, seed: int = 0) -> tuple[set[str], str]:
        config = make_config(
            model=str(tiny_model),
            seed=seed,
            annotate={"max_pairs": max_pairs, "samples": 1, "max_new_tokens": 0, "force_verdict": True},
            decode={"sequences": 8, "buckets": (640,), "suffix_chunk": 16, "prefix_tokens": 8 * 640},
        )
        workdir = epath.Path(tmp_path_factory.mktemp("run"))
        judgments = annotate.run(Context(config, workdir), 1, pairs)
        folder = workdir / "iteration_1" / "annotate"
        return {j.pair_id for j in judgments}, require_success(folder).content_hash

    return work


def test_a_part_is_drawn_by_the_seed(annotated: Callable[..., tuple[set[str], str]]) -> None:
    drawn, content = annotated(3)
    assert len(drawn) == 3
    assert annotated(3) == (drawn, content)
    assert len({frozenset(annotated(3, seed)[0]) for seed in range(4)}) > 1


@pytest.mark.parametrize("max_pairs", [0, 6, 7])
def test_all_pairs_are_judged(
    annotated: Callable[..., tuple[set[str], str]], pairs: list[Comparison], max_pairs: int
) -> None:
    assert annotated(max_pairs)[0] == {pair.id for pair in pairs}
