"""A loaded benchmark: comparisons and their origin."""

import dataclasses
from typing import Any

from ste_jax.data.comparisons import columns_passed_through, pairs_in, without_identical
from ste_jax.data.files import content_hash, data_files, other_parts
from ste_jax.data.named_columns import BY_NAME, NamedColumns
from ste_jax.data.rows import read_table
from ste_jax.errors import SteError
from ste_jax.randomness import generator
from ste_jax.records import Comparison


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Comparisons to evaluate a judge on.

    Attributes:
      name: name of the benchmark; "" for a file of the user.
      items: the comparisons.
      source: file, folder or name of the data set on the hub.
      revision: commit on the hub, or None for local files.
      content: sha256 of the files.
      notes: counts of what was left out or changed, and columns that are not read.
    """

    name: str
    items: list[Comparison]
    source: str
    revision: str | None
    content: str
    notes: dict[str, Any]

    def limited(self, limit: int, seed: int) -> list[Comparison]:
        """Returns a sample of the comparisons, in their order.

        Prompts are drawn at random with all their comparisons, except the last one, which may be cut.

        Args:
          limit: number of comparisons; 0 for all.
          seed: seed of the draw.
        """
        if not limit or limit >= len(self.items):
            return self.items
        prompts = sorted({item.prompt_id for item in self.items})
        rank = dict(zip(prompts, generator(seed, "limit").permutation(len(prompts)), strict=True))
        drawn = sorted(range(len(self.items)), key=lambda i: (rank[self.items[i].prompt_id], i))[:limit]
        return [self.items[i] for i in sorted(drawn)]


def read_pairs_file(path: str, named: NamedColumns = BY_NAME) -> Benchmark:
    """Returns the labelled comparisons of a file or folder (see `read_comparisons`).

    Pairs of two equal responses, of which none is better, are left out. What was left out or changed is
    counted in the notes.

    Args:
      path: see `read_comparisons`.
      named: columns that the user names.

    Raises:
      SteError: as `read_comparisons`, or "data_invalid" if no pair is left.
    """
    read, cut = pairs_in(read_table(path), labels="required", named=named)
    items, identical = without_identical(read)
    if not items:
        raise SteError("data_invalid", f"{path}: both responses are the same in all {identical} pairs")
    notes = {
        "identical_responses_left_out": identical,
        "pairs_with_the_prompt_taken_off_the_responses": cut,
        "empty_responses": sum(
            not text.strip() for one in items for text in (one.response_a, one.response_b)
        ),
        "other_parts_not_read": other_parts(path),
        "columns_passed_through": columns_passed_through(items),
    }
    return Benchmark(
        name="",
        items=items,
        source=path,
        revision=None,
        content=content_hash(data_files(path)),
        notes={name: value for name, value in notes.items() if value},
    )
