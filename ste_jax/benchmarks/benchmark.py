"""A loaded benchmark: comparisons and their origin."""

import dataclasses
import hashlib
from typing import Any

from etils import epath

from ste_jax.data.comparisons import read_comparisons
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
      notes: counts of what was left out.
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


def read_pairs_file(path: str) -> Benchmark:
    """Returns the labelled comparisons of a .jsonl, .csv or .parquet file (see `read_comparisons`).

    Raises:
      SteError: as `read_comparisons`.
    """
    items = read_comparisons(path, labels="required")
    content = hashlib.sha256(epath.Path(path).expanduser().read_bytes()).hexdigest()
    return Benchmark(name="", items=items, source=path, revision=None, content=content, notes={})
