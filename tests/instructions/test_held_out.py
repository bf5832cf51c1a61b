"""Texts that are held out are found by what they say."""

from ste_jax.instructions.held_out import overlaps, repeats

LONG = "Describe in plain words how a suspension bridge carries its load from the deck to the ground below it"


def test_equal_and_near_texts_repeat_a_held_out_text():
    texts = [LONG, LONG.upper(), f"{LONG}.", f"  {LONG}\n", LONG.replace("bridge", "cable"), "Something else"]
    assert repeats(texts, [LONG, LONG], 0.9) == [True, True, True, True, False, False]
    assert repeats(texts, [LONG], 1.0) == [True, True, False, True, False, False]
    assert repeats(texts, [], 0.8) == [False] * 6


def test_a_run_of_thirteen_words_overlaps():
    words = LONG.split()
    thirteen, twelve = (f"Quote: {' '.join(words[:n])} -- and go on with your own." for n in (13, 12))
    assert overlaps([thirteen, twelve, "short"], [LONG, "short"], 0.8) == [True, False, True]


def test_every_held_out_text_counts_also_one_that_is_near_another():
    words = [f"word{n}" for n in range(60)]
    held_out = [" ".join(words), " ".join([*words[:56], "other", "ends", "stand", "here"])]
    text = " ".join([*words[:52], "more", "of", "them", "yet", "other", "ends", "stand", "here"])
    assert repeats([held_out[1]], held_out[:1], 0.8) == [True], "the two are near duplicates"
    assert repeats([text], held_out[1:], 0.8) == [True]
    assert repeats([text], held_out[:1], 0.8) == [False]
    assert repeats([text], held_out, 0.8) == [True]
