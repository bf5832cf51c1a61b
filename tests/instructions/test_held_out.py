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
