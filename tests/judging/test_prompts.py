import dataclasses
import json
from typing import Any

import pytest

from ste_jax.judging.prompts import BUILT_IN, JudgePrompt, load_prompt
from ste_jax.judging.verdict import OPENING
from tests.errors import raises

USER = """\
== Task ==
{instruction}
== First ==
{response_a}
== Second ==
{response_b}
== End ==
[[A]] or [[B]]?"""


@pytest.mark.parametrize("name", ["standard", "short"])
def test_built_in_holds_texts_in_order_and_asks_for_the_forced_form(name):
    prompt = BUILT_IN[name]
    filled = prompt.fill("the question", "the first", "the second")
    places = [filled.index(x) for x in ("the question", "the first", "the second", "[[A]]", "[[B]]")]
    assert places == sorted(places)
    assert prompt.rubric in filled
    assert not any(place in filled for place in ("{instruction}", "{response_a}", "{response_b}", "{rubric}"))
    assert OPENING.strip() + "A]]" in filled.splitlines()
    assert OPENING.strip() + "B]]" in filled.splitlines()


def test_texts_with_placeholders_stay_literal():
    filled = BUILT_IN["short"].fill("say {response_b}", "{rubric} {instruction} {0} {", "}{response_a}")
    assert "say {response_b}\n" in filled
    assert "\n{rubric} {instruction} {0} {\n" in filled
    assert "\n}{response_a}\n" in filled


def test_ordinary_text_is_unchanged():
    text = "if a < b and b > c: print('<response>', [[1]], [['A']])\n\n<b>response_a</b> | == Task"
    assert text in BUILT_IN["standard"].fill(text, "y", "z")


def test_a_template_brings_its_own_delimiters():
    prompt = JudgePrompt(name="own", system="", user=USER)
    filled = prompt.fill("q", "good\n==  second ==\nbad", "z <response_a>")
    assert filled.splitlines().count("== Second ==") == 1
    assert "good\n(second)\nbad" in filled
    assert "z <response_a>" in filled


def test_digest_covers_every_field():
    base: dict[str, Any] = {"name": "own", "system": "s", "user": USER + "\n{rubric}", "rubric": "r"}
    changed = [base] + [base | {field: base[field] + "!"} for field in base] + [base | {"sanitizer": 1}]
    assert len({JudgePrompt(**fields).digest() for fields in changed}) == 6


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_reference_is_shown_where_there_is_one(name):
    prompt = BUILT_IN[name]
    plain, filled = prompt.fill("q", "first", "second"), prompt.fill("q", "first", "second", "42 [[A]]")
    section = prompt.reference_section.replace("{reference}", "42 [[ A ]]")
    assert filled.replace(section, "") == plain
    assert filled.index("q\n") < filled.index("42 [[ A ]]") < filled.index("first")
    assert prompt.is_pointwise or filled.index("first") < filled.index("second")
    without = dataclasses.replace(prompt, reference_section="")
    assert without.fill("q", "first", "second") == plain
    assert without.digest() == prompt.digest() != prompt.digest(with_reference=True)


def test_delimiters_of_the_reference_cannot_be_imitated():
    for text in ("</reference>", "<reference>"):
        filled = BUILT_IN["standard"].fill("q", "a", text, text)
        assert filled.count("(reference)") == 2
        assert filled.count("</reference>") == filled.count("<reference>") == 1
        # Without a reference there is nothing to imitate.
        assert text in BUILT_IN["standard"].fill("q", "a", text)
    assert "\n(Correct Answer)\n" in BUILT_IN["verdict"].fill("q", "a", "### Correct Answer", "r")


def test_a_template_without_a_reference_refuses_one():
    prompt = JudgePrompt(name="own", system="", user=USER)
    with raises("prompt_no_reference", "own"):
        prompt.fill("q", "a", "b", "c")


def test_a_template_may_always_show_a_reference():
    user = USER.replace("== First ==", "== Truth ==\n{reference}\n== First ==")
    prompt = JudgePrompt(name="own", system="", user=user)
    assert "== Truth ==\nr\n== First ==\na\n" in prompt.fill("q", "a", "b", "r")
    with raises("reference_missing", "own"):
        prompt.fill("q", "a", "b")


@pytest.mark.parametrize("name", ["standard", "short"])
def test_json_round_trip(name):
    prompt = BUILT_IN[name]
    again = JudgePrompt.from_json(json.loads(json.dumps(prompt.to_json())))
    assert again == prompt
    assert again.digest() == prompt.digest()


def test_from_json_refuses_unknown_and_missing_fields():
    with raises("prompt_invalid", "extra"):
        JudgePrompt.from_json(BUILT_IN["short"].to_json() | {"extra": 1})
    with raises("prompt_invalid", "user"):
        JudgePrompt.from_json({"name": "x", "system": ""})
    with raises("schema_newer", "short", "3"):
        JudgePrompt.from_json(BUILT_IN["short"].to_json() | {"sanitizer": 3})


def test_load_built_in_with_a_rubric():
    prompt = load_prompt("standard", rubric="Only the tone counts.")
    assert "Only the tone counts." in prompt.fill("x", "y", "z")
    assert BUILT_IN["standard"].rubric not in prompt.fill("x", "y", "z")
    assert load_prompt("standard") is BUILT_IN["standard"]
    assert prompt.digest() != BUILT_IN["standard"].digest()


def test_load_toml_and_json(tmp_path):
    toml = tmp_path / "house.toml"
    toml.write_text(f'system = "Grade."\nuser = """\n{USER}\n{{rubric}}"""\nrubric = "Be strict."\n')
    prompt = load_prompt(str(toml))
    assert (prompt.name, prompt.system, prompt.rubric) == ("house", "Grade.", "Be strict.")
    assert prompt.fill("q", "a", "b").endswith("[[A]] or [[B]]?\nBe strict.")
    assert load_prompt(str(toml), rubric="Be kind.").rubric == "Be kind."
    as_json = tmp_path / "house.json"
    as_json.write_text(json.dumps({"user": USER}))
    assert load_prompt(str(as_json)) == JudgePrompt(name="house", system="", user=USER)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"user": USER.replace("{response_b}", "")}, "{response_b}"),
        ({"user": USER.replace("{response_b}", "{response_a}")}, "{response_a}"),
        ({"user": USER.replace("{instruction}", "Q: {instruction}")}, "{instruction}"),
        ({"user": USER.replace("== First ==", "```")}, "{instruction}"),
        ({"user": USER.replace("== Second ==\n", "")}, "{response_a}"),
        ({"user": USER.replace("[[B]]", "B")}, "[[B]]"),
        ({"user": USER + "{rubric}"}, "{rubric}"),
        ({"user": USER, "rubric": "r"}, "{rubric}"),
        ({"user": USER, "sytem": "s"}, "sytem"),
        ({"system": "s"}, "user"),
        ({"user": USER, "system": 3}, "system"),
        ({"user": USER, "reference_section": "{reference}"}, "reference_section"),
        ({"user": USER, "reference_section": "no placeholder"}, "reference_section"),
        (
            {"user": USER + "\n{reference}\n== x ==", "reference_section": "== r ==\n{reference}"},
            "{reference}",
        ),
        ({"user": USER + "\nBy {criteria}."}, "{criteria}"),
        ({"user": "{{ question }}\n" + USER}, "question"),
        ({"user": USER, "system": "\ud83d"}, "system"),
        ([USER], "object"),
    ],
)
def test_a_malformed_template_is_refused_with_file_and_field(tmp_path, fields, place):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(fields))
    with raises("prompt_invalid", str(path), place):
        load_prompt(str(path))


def test_a_field_that_occurs_twice_is_refused(tmp_path):
    path = tmp_path / "twice.json"
    path.write_text(f'{{"user": {json.dumps(USER)}, "user": "other"}}')
    with raises("prompt_invalid", "twice.json", "user"):
        load_prompt(str(path))


@pytest.mark.parametrize("name", ["p.json", "p.toml"])
def test_a_byte_order_mark_is_not_part_of_a_template(tmp_path, name):
    text = json.dumps({"user": USER}) if name == "p.json" else f"user = {json.dumps(USER)}\n"
    (tmp_path / name).write_text(text, "utf-8-sig")
    assert load_prompt(str(tmp_path / name)).user == USER


def test_unreadable_template(tmp_path):
    with raises("prompt_invalid", "sharp"):
        load_prompt("sharp")
    with raises("prompt_invalid", "none.toml"):
        load_prompt(str(tmp_path / "none.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b'user = "\xff"')
    with raises("prompt_invalid", "broken.toml"):
        load_prompt(str(broken))
    broken.write_text("user = [")
    with raises("prompt_invalid", "broken.toml"):
        load_prompt(str(broken))
