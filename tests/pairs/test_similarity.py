from ste_jax.pairs.similarity import nearest


def test_the_nearest_shares_the_rarest_words():
    texts = [
        "Can one bake bread without yeast?",
        "How do I paint a wall without tape?",
        "Which yeast is best to bake bread with?",
        "how do i PAINT the old wall",
        "Zzz",
    ]
    assert nearest(texts) == [2, 3, 0, 1, None]


def test_equal_texts_are_near_each_other_and_nobody_is_near_itself():
    assert nearest(["a rose", "a rose", "a car"])[:2] == [1, 0]
    assert nearest(["a rose", "a rose", "a rose"]) != [0, 1, 2]
    assert all(other != at for at, other in enumerate(nearest(["a rose"] * 5)))
    assert nearest(["alone"]) == [None]
    assert nearest(["!?", "..."]) == [None, None]
