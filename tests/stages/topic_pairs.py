"""Pairs about topics, for tests of annotation."""

from collections.abc import Sequence

from ste_jax.records import Comparison


def topic_pairs(topics: Sequence[str]) -> list[Comparison]:
    """Returns a labelled pair for each topic, of which the first and the second response win in turn."""
    return [
        Comparison(
            id=f"p{i:02d}",
            prompt_id=f"p{i:02d}",
            instruction=f"Explain {topic}.",
            response_a=f"It is {topic}.",
            response_b="I do not know.",
            label="AB"[i % 2],
        )
        for i, topic in enumerate(topics)
    ]
