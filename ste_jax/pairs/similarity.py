"""Finds the most similar texts by tf-idf."""

from collections.abc import Sequence

from ste_jax.extras import needs


def nearest(texts: Sequence[str]) -> list[int | None]:
    """Returns, for each text, the index of the most similar other text.

    The index is None for a text that shares no words with any other; see `neighbours`.
    """
    return [found[0][1] if found else None for found in neighbours(texts, 1)]


def neighbours(texts: Sequence[str], count: int) -> list[list[tuple[float, int]]]:
    """Returns, for each text, the similarities and indices of up to `count` of the most similar other texts.

    Similarity is the cosine of the tf-idf weights of words and punctuation. Texts that share none are never
    neighbours.

    Raises:
      SteError: "extra_missing" if scikit-learn is not installed.
    """
    with needs("select"):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.neighbors import NearestNeighbors

    if len(texts) < 2:
        return [[] for _ in texts]
    vectors = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True).fit_transform(texts)
    index = NearestNeighbors(n_neighbors=min(count + 1, len(texts)), metric="cosine").fit(vectors)
    distances, found = index.kneighbors(vectors)
    return [
        [
            (1.0 - float(distance), int(other))
            for distance, other in zip(row, others, strict=True)
            if other != text and distance < 1.0
        ][:count]
        for text, (row, others) in enumerate(zip(distances, found, strict=True))
    ]
