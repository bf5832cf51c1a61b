import pytest

from ste_jax.instructions.labels import CATEGORIES, LENGTH_BANDS, Label, label_prompt, parse_label


def test_the_prompt_shows_the_request_and_every_permitted_value():
    messages = label_prompt("Why is {this} so?")
    assert messages[-1].role == "user"
    assert messages[-1].content.endswith("Why is {this} so?")
    assert all(value in messages[0].content for value in (*CATEGORIES, *LENGTH_BANDS))
    assert sum(len(m.content.split()) for m in label_prompt("")) < 130
    own = label_prompt("x", ("Refunds", "Praise"))
    assert "Refunds" in own[0].content
    assert not any("Coding" in m.content for m in own)


def test_worked_turns_are_labels_that_the_parser_reads():
    turns = label_prompt("x")
    answers = [parse_label(m.content) for m in turns if m.role == "assistant"]
    assert len(answers) == 2
    assert all(None not in (a.category, a.complexity, a.length) for a in answers)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("Category: Coding\nComplexity: 7\nLength: 1 paragraph", Label("Coding", 7, "1 paragraph")),
        ("category: CODING\ncomplexity: 07\nlength: 1 PARAGRAPH", Label("Coding", 7, "1 paragraph")),
        (
            "Sure!\n\n1. **Category:** Open question answering.\n2. **Complexity:** 7/10\n"
            "3. **Length:** 1–3 sentences",
            Label("Open Question Answering", 7, "1-3 sentences"),
        ),
        (
            "- *Category* - Inhabiting a character / persona\n- *Complexity* - 10 out of 10\n"
            "- *Length* - 3+ paragraphs",
            Label("Inhabiting a Character/Persona", 10, "3 or more paragraphs"),
        ),
        (
            '{\n  "category": "Humanity, History or Social Studies",\n  "complexity": 3,\n'
            '  "length": "2 paragraphs"\n}',
            Label("Humanity, History or Social Studies", 3, "2 paragraphs"),
        ),
        (
            "Category: Rewriting (of a mail)\nComplexity (1-10): about 4 (easy)\n"
            "Length of a good answer: one sentence",
            Label("Rewriting", 4, "1 sentence"),
        ),
        (
            "Category: Math\nComplexity: 8 (out of 10)\nLength: three or more",
            Label("Mathematical reasoning", 8, "3 or more paragraphs"),
        ),
        ("Length: 2 paragraphs\nCategory: Other", Label("Other", None, "2 paragraphs")),
        ("Category: 3. Brainstorming\nCategory: brainstorming", Label("Brainstorming", None, None)),
        ("Length: 1 to 3 sentences", Label(None, None, "1-3 sentences")),
        ("Length: 1 sentence(s)", Label(None, None, "1 sentence")),
    ],
)
def test_clear_answers_are_read(completion, expected):
    assert parse_label(completion) == expected


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "The sky is blue because of scattering.",
        "This request is about Coding, complexity is 5.",
        "Category:",
        "Category: Cooking",
        "Category: Question Answering",
        "Category: C",
        "Category: not Coding",
        "Category: Coding; Mathematical reasoning; Other",
        "Category: one of Coding; Mathematical reasoning",
        "Category: Coding\nCategory: Rewriting",
        "Complexity:",
        "Complexity: 0",
        "Complexity: 11",
        "Complexity: -3",
        "Complexity: 7.5",
        "Complexity: 7/100",
        "Complexity: 1-10",
        "Complexity: 7 or 8",
        "Complexity: hard",
        "Complexity: " + "7" * 9000,
        "Complexity:\nLength:",
        "Length: 1",
        "Length: 200 words",
        "Length: 4 sentences",
        "Length: 1 sentence or 2 paragraphs",
        "Length: 11 paragraphs",
    ],
)
def test_nothing_is_guessed(completion):
    assert parse_label(completion) == Label(None, None, None)


def test_every_value_of_the_prompt_is_read_back():
    for category in CATEGORIES:
        assert parse_label(f"Category: {category}").category == category
    for band in LENGTH_BANDS:
        assert parse_label(f"Length: {band}").length == band


def test_own_categories_may_contain_each_other():
    categories = ("Question", "Billing Question", "Praise")
    assert parse_label("Category: billing question!", categories).category == "Billing Question"
    assert parse_label("Category: question", categories).category == "Question"
    assert parse_label("Category: Praise and Question", categories).category is None
    assert parse_label("Category: Coding", categories).category is None
