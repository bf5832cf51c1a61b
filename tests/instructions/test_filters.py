import sys

import pytest
from lingua import Language

from ste_jax.instructions.filters import LANGUAGES, FilterSettings, FunnelStep, filter_instructions, mask
from ste_jax.records import Instruction
from tests.errors import raises

OFF = {"languages": (), "personal_data": "keep"}
ENGLISH = [
    "Who is Francesco Lelli?",
    "Is Elon Musk an alien?",
    "write a glsl shader",
    "initial server in nodejs",
    "hi",
    "Is 9999999900000001 prime",
    "Find Re(Li2(i))",
    "2x + 3y = 7, x - y = 1",
    "Translate to English: Wo ist der nächste Bahnhof? Ich habe meinen Koffer verloren.",
    "¿Dónde está la biblioteca? Necesito devolver este libro.\n\nTranslate this into English please.",
    "Fix it:\n```python\n# öffne die Datei und lies alle Zeilen ein\nfür_alle = 1\n```",
    "what does schadenfreude mean",
]
FOREIGN = [
    "¿Qué cosas hay que tener en cuenta a la hora de ir a una entrevista de trabajo?",
    "Wie kann ich eine Funktion definieren in Rust?",
    "Напиши короткое стихотворение о море",
    "写一首关于春天的诗",
    "Peux-tu me corriger ?\n\nJe suis allé au marché hier, et j'ai acheté des pommes pour ma grand-mère.",
]


def _instructions(*texts: str) -> list[Instruction]:
    return [Instruction(id=str(number), text=text, source="test") for number, text in enumerate(texts)]


def _kept(texts: list[str], **settings) -> list[str]:
    left, _ = filter_instructions(_instructions(*texts), FilterSettings(**OFF | settings))
    return [instruction.text for instruction in left]


def test_the_funnel_counts_every_step_in_order():
    left, steps = filter_instructions(
        _instructions(
            "Why is the sky blue?",
            "why  is the SKY\nblue?",
            "Name a long river. " * 20,
            "List the colours of the rainbow in their order, with a line on how each of them comes about.",
            "List the colours of the rainbow in their order, with a line on how each of them came about.",
            "Wie kann ich eine Funktion definieren in Rust?",
            "Write to jane.roe@acme-tools.com about my order.",
        ),
        FilterSettings(max_chars=200),
    )
    assert steps == [
        FunnelStep("exact duplicate", 1, 6),
        FunnelStep("too long", 1, 5),
        FunnelStep("near duplicate", 1, 4),
        FunnelStep("other language than en", 1, 3),
        FunnelStep("personal data", 1, 2),
    ]
    assert [instruction.id for instruction in left] == ["0", "3"]


def test_filters_that_are_off_make_no_step():
    left, steps = filter_instructions(_instructions(FOREIGN[0], "Mail bob@acme.org"), FilterSettings(**OFF))
    assert len(left) == 2
    assert [step.name for step in steps] == ["exact duplicate", "too long", "near duplicate"]


def test_nothing_in_nothing_out():
    left, steps = filter_instructions([], FilterSettings())
    assert (left, [step.left for step in steps]) == ([], [0] * 5)


def test_the_first_of_near_duplicates_stays_and_the_threshold_decides():
    texts = [
        "Write a function that checks whether the given month number has 30 days or not.",
        "Write a function that checks whether the given month number has 31 days or not.",
        "Write a function that counts the vowels of a sentence.",
    ]
    assert _kept(texts) == [texts[0], texts[2]]
    assert _kept(texts[::-1]) == [texts[2], texts[1]]
    assert _kept(texts, near_duplicate_threshold=1.0) == texts
    assert _kept([*texts, "ab", "ab?", "AB"], near_duplicate_threshold=0.95) == [*texts, "ab", "ab?"]


def test_invisible_characters_make_no_other_text():
    text = "Name the longest river of Europe and the sea that it flows to."
    hidden = ["lon\u00adgest".join(text.split("longest")), f"{text}\x00", text.replace(" sea", " s\u200bea")]
    assert _kept([text, *hidden], near_duplicate_threshold=1.0) == [text]


def test_near_duplicates_are_found_among_many():
    topics = ["tides", "tea", "trains", "taxes", "tigers", "tulips", "towers", "tunnels", "tents", "tin"]
    texts = [
        f"{verb} {topic} {ask} in the {century} century" + " please" * (topic == "tea")
        for verb in ("Explain what", "Tell a friend who never read about")
        for topic in topics
        for ask in ("meant to sailors", "looked like seen by a child that could not sleep")
        for century in ("14th", "seventeenth", "last")
    ]
    assert _kept(texts, near_duplicate_threshold=0.99) == texts
    doubled = [copy for text in texts for copy in (text, text + ".")]
    assert _kept(doubled, near_duplicate_threshold=0.95) == texts


def test_clear_foreign_text_goes_and_short_or_mixed_english_stays():
    assert _kept(ENGLISH + FOREIGN, languages=("en",), near_duplicate_threshold=1.0) == ENGLISH


def test_languages_can_be_chosen_outside_of_the_usual_rivals_too():
    texts = ["Πώς μαγειρεύω φακές χωρίς να γίνουν λάσπη;", FOREIGN[1], FOREIGN[2]]
    assert _kept(texts, languages=("de", "el")) == texts[:2]


@pytest.mark.parametrize(
    "text",
    [
        "Reply to m.keller+news@uni-bremen.de please",
        "call me on +44 20 7946 0958 tomorrow",
        "My number is (212) 736-5000, text me",
        "Reach the shop at 212-736-5000.",
        "Ring 1-212-736-5000 and ask for the manager",
        "Is 4242 4242 4242 4242 a valid card?",
        "charge 378282246310005 please",
        "pay with 5555-5555-5555-4444",
    ],
)
def test_personal_data_goes(text):
    assert _kept([text], personal_data="drop") == []


@pytest.mark.parametrize(
    "text",
    [
        "What is 2127365000 divided by 25?",
        "Add 212 736 5000 and 310 555 1234.",
        "Solve 4x - 2125551234 = 0 and 555-1234 = y",
        "Sum the list [2127365000, 3102345678, 4152345678]",
        "A shop sold 1,234,567,890 screws from 1990-2005 for $12.50 each.",
        "Is 1234567812345678 divisible by 9? And 4242424242424243?",
        "pi is 3.1415926535897932",
        "The id is 456712345678901234",
        "clone git@github.com:acme/tools.git and mail user@example.com",
        "use the @app.route decorator, then user@localhost",
        "Between 2024-01-15 10:30:00 and 2024-02-15, which IP is 192.168.100.1234?",
    ],
)
def test_ordinary_numbers_and_made_up_addresses_stay(text):
    assert _kept([text], personal_data="drop") == [text]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Mail a.b@uni.de or c@d.org.", "Mail <EMAIL> or <EMAIL>."),
        ("call me on +44 20 7946 0958 or (212) 736-5000", "call me on <PHONE> or <PHONE>"),
        ("4242 4242 4242 4242, 378282246310005: which is a card?", "<CARD>, <CARD>: which is a card?"),
        ("m@n.de paid with 5555-5555-5555-4444; ring 212-736-5000", "<EMAIL> paid with <CARD>; ring <PHONE>"),
        ("user@example.com has 2127365000 files", "user@example.com has 2127365000 files"),
        ("", ""),
    ],
)
def test_masks_replace_the_data_and_nothing_else(text, masked):
    assert mask(text) == mask(masked) == masked


def test_masked_instructions_stay_and_are_counted():
    texts = ["Write to jo@shop.org please.", "Where is my parcel with the blue vase?"]
    given = [Instruction(id=text, text=text, source="test") for text in texts]
    kept, steps = filter_instructions(given, FilterSettings(languages=(), personal_data="mask"))
    assert [one.text for one in kept] == ["Write to <EMAIL> please.", texts[1]]
    assert (steps[-1].name, steps[-1].removed, steps[-1].left) == ("personal data, masked in 1", 0, 2)
    kept, steps = filter_instructions(given, FilterSettings(languages=(), personal_data="keep"))
    assert [one.text for one in kept] == texts
    assert "personal data" not in " ".join(step.name for step in steps)


def test_data_in_any_column_that_is_read_removes_the_instruction():
    parts = (
        {"response": "Ask jo@shop.org."},
        {"reference": "+44 20 7946 0958"},
        {"texts": {"c": "jo@shop.org"}},
    )
    given = [Instruction(id=str(n), text=f"Why {n}?", source="t", **part) for n, part in enumerate(parts)]
    settings = FilterSettings(languages=(), near_duplicate_threshold=1.0)
    kept, steps = filter_instructions(given, settings)
    assert (kept, steps[-1].removed) == ([], 3)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"near_duplicate_threshold": 0.0}, "near_duplicate_threshold"),
        ({"near_duplicate_threshold": float("nan")}, "near_duplicate_threshold"),
        ({"near_duplicate_threshold": 1.1}, "near_duplicate_threshold"),
        ({"max_chars": 0}, "max_chars"),
        ({"languages": ("english",)}, "'english'"),
        ({"languages": "en"}, "'e'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, place):
    with raises("config_invalid", place):
        FilterSettings(**settings)


def test_the_languages_are_those_of_the_detector() -> None:
    assert {language.iso_code_639_1.name.lower() for language in Language.all()} == LANGUAGES


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lingua", None)
    with raises("extra_missing", "lingua", "ste-jax[select]"):
        filter_instructions(
            [Instruction(id="1", text="Name a river.", source="test")], FilterSettings(languages=("en",))
        )
