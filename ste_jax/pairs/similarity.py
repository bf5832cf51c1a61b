"""Finds the most similar text by tf-idf."""

from collections.abc import Sequence

from ste_jax.extras import needs


def nearest(texts: Sequence[str]) -> list[int | None]:
    """Returns, for each text, the index of the most similar other text.

    Similarity is the cosine of the tf-idf weights of words and punctuation. The index is None for a text that
    shares none with any other.

    Raises:
      SteError: "extra_missing" if scikit-learn is not installed.
    """
    with needs("select"):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.neighbors import NearestNeighbors

    if len(texts) < 2:
        return [None] * len(texts)
    vectors = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True).fit_transform(texts)
    distances, found = NearestNeighbors(n_neighbors=2, metric="cosine").fit(vectors).kneighbors(vectors)
    others: list[int | None] = []
    for text, ((near, far), (closest, second)) in enumerate(zip(distances, found, strict=True)):
        distance, other = (far, second) if closest == text else (near, closest)
        others.append(int(other) if distance < 1.0 else None)
    return others
