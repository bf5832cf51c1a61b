"""What a benchmark is once it is loaded: comparisons, and where they come from."""

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
      name: of the benchmark; "": a file of the user's own.
      items: its comparisons.
      source: the file, folder or hub name that was read.
      revision: the hub's commit, if the hub was read.
      content: sha256 of what was read.
      notes: what was left out on the way, counted.
    """

    name: str
    items: list[Comparison]
    source: str
    revision: str | None
    content: str
    notes: dict[str, Any]

    def limited(self, limit: int, seed: int) -> list[Comparison]:
        """Returns so many comparisons, in their order: prompts are drawn at random, with all they have.

        Args:
          limit: how many (0: all); of the last prompt that is drawn only as many as fit.
          seed: of the draw.
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
