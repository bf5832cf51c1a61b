"""Near duplicates of texts: MinHash finds candidates, the exact similarity of their 5-grams decides."""

from ste_jax.text.folding import without_invisible

_SHINGLE = 5
_PERMUTATIONS = 128


def normal(text: str) -> str:
    """Returns text in which case, white space and invisible characters do not count."""
    return " ".join(without_invisible(text).casefold().split())


class NearDuplicates:
    """A set of texts that finds those similar to another text.

    Args:
      threshold: Jaccard similarity of character 5-grams from which two texts are near duplicates.
    """

    def __init__(self, threshold: float):
        # Libraries are imported where they are used: loading a configuration must not wait for them.
        from datasketch import MinHashLSH

        self._threshold = threshold
        self._texts: set[str] = set()
        self._index = MinHashLSH(num_perm=_PERMUTATIONS, params=_bands(threshold))

    def add(self, text: str) -> None:
        """Adds a text, also a near duplicate of another one."""
        if text not in self._texts:
            self._insert(text, self._sketch(text)[1])

    def add_if_new(self, text: str) -> bool:
        """Adds a text unless the set has a near duplicate of it; returns True if it was added."""
        shingles, sketch = self._sketch(text)
        if self._has(shingles, sketch):
            return False
        self._insert(text, sketch)
        return True

    def _insert(self, text: str, sketch) -> None:
        self._texts.add(text)
        self._index.insert(text, sketch)

    def __contains__(self, text: str) -> bool:
        """Returns True if the set has a near duplicate of a text."""
        return self._has(*self._sketch(text))

    def _has(self, shingles: set[str], sketch) -> bool:
        others = (_shingles(str(other)) for other in self._index.query(sketch))
        return any(_jaccard(shingles, other) >= self._threshold for other in others)

    def _sketch(self, text: str):
        from datasketch import MinHash

        shingles = _shingles(text)
        sketch = MinHash(num_perm=_PERMUTATIONS, seed=1)
        sketch.update_batch([shingle.encode() for shingle in shingles])
        return shingles, sketch


def _bands(threshold: float) -> tuple[int, int]:
    """Returns the fewest bands, and rows per band, that find 995 of 1000 pairs at the threshold."""
    rows = (number for number in range(_PERMUTATIONS // 2, 1, -1))
    missed = ((number, (1 - threshold**number) ** (_PERMUTATIONS // number)) for number in rows)
    best = next((number for number, chance in missed if chance < 0.005), 1)
    return _PERMUTATIONS // best, best


def _shingles(text: str) -> set[str]:
    text = normal(text)
    return {text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1))}


def _jaccard(left: set[str], right: set[str]) -> float:
    return len(left & right) / len(left | right)
