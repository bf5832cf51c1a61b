"""Texts that are held out are found by what they say."""

import pytest

from ste_jax.instructions.held_out import contains, overlaps, repeats

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


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (
            "Which river flows through Vienna?",
            "Answer in one word: which river flows through Vienna? Thanks!",
        ),
        (
            "Which river flows through Vienna?",
            "Tell me please which river flows through vienna and how long it is",
        ),
        ("Who painted Guernica?", "You are a tutor.\nWho painted “Guernica”?\nExplain."),
        ("Name two planets", "Name two planets, please."),
        ("What's 7 x 8?", "Quiz. What’s 7 x 8? Go."),
        ("Why?", "why"),
        ("Why?", "Ｗｈｙ？"),
        ("奥地利最长的河是哪一条", "请回答：奥地利最长的河是哪一条？谢谢。"),
        ("奥地利最长的河是哪一条", "请告诉我奥地利最长的河是哪一条并说明理由"),
        ("谁写了红楼梦", "问题:谁写了红楼梦?请回答"),
        (
            "日本で一番高い山はどこですか",
            "次の質問に答えてください。日本で一番高い山はどこですか？短く書いてください。",
        ),
        ("ﾆﾎﾝﾃﾞｲﾁﾊﾞﾝﾀｶｲﾔﾏ", "つぎのしつもん。ニホンデイチバンタカイヤマはどこ"),
        ("แม่น้ำที่ยาวที่สุดในไทยคืออะไร", "ตอบสั้นๆ แม่น้ำที่ยาวที่สุดในไทยคืออะไร ขอบคุณ"),
        ("Explain GPU 内存带宽 to a child", "Please explain gpu 内存带宽 to a child in two lines."),
        (LONG, f"Draw it. {LONG} Keep it short."),
    ],
)
def test_a_prompt_that_stands_in_a_longer_text_is_found(prompt, text):
    around = "Some other words stand before it and after it, so that the two are not near. " * 3
    for given in (text, f"{around}\n{text}\n{around}"):
        if prompt == "Why?" and given != text:
            continue
        assert contains([given], ["Something else entirely", prompt], 0.8) == [True]
        assert overlaps([given], ["Something else entirely", prompt], 0.8) == [True]


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("Write a poem", "Write a poem about the rain in spring."),
        ("Why?", "Why? Because it rains."),
        ("写一首诗", "请写一首诗关于春天的雨"),
        ("!?", "What!?"),
        ("", "What now?"),
        ("Which river flows through Vienna?", "Which river flows through Venice?"),
        ("Which river flows through Vienna?", "Which rivers flow through Vienna, and which through Graz?"),
        ("奥地利最长的河是哪一条", "奥地利最长的山谷是哪一条,奥地利最长的路是哪一条"),
    ],
)
def test_other_texts_contain_no_prompt(prompt, text):
    assert contains([text], [prompt], 0.8) == [False]
    assert overlaps([text], [prompt], 0.8) == [False]


def test_a_long_prompt_without_blanks_is_found_by_its_runs():
    prompt = "请用三句话总结以下关于多瑙河航运历史的文章并指出作者的主要观点以及论据还要给出你自己的看法"
    piece = "总结以下关于多瑙河航运历史的文章并指出作者的主要观点"
    assert len(piece) == 26
    around = "今天天气很好我们去公园散步吧"
    texts = [f"{around}{piece}{around}", f"{around}{piece[1:]}{around}", f"{around}{piece[:-1]}。{around}"]
    assert overlaps(texts, [prompt], 0.8) == [True, False, False]
    assert contains(texts, [prompt], 0.8) == [False] * 3


def test_invisible_characters_hide_no_prompt():
    prompt = "Explain why the tides follow the moon every day"
    hidden = "Please do this: " + prompt.replace("plain", "\u00adplain").replace("oo", "o\u200bo") + "."
    assert contains([hidden], [prompt], 1.0) == [True]
    assert contains([hidden.replace("tides", "winds")], [prompt], 1.0) == [False]
    long = " ".join(f"word{n}" for n in range(20))
    assert overlaps([long.replace("word", "wo\u00adrd")], [long], 1.0) == [True]
