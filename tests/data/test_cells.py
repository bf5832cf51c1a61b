"""Lists that stand in cells as text, as tables in CSV have them."""

import collections
import csv
import json
from pathlib import Path

import pytest

from ste_jax.data.cells import begins_conversation, begins_texts
from ste_jax.data.comparisons import load_pairs, read_comparisons, read_rankings, read_scorings
from ste_jax.data.sources import read_instructions
from tests.cpu_limit import cpu_limit
from tests.data.pair_files import lines, read
from tests.errors import raises

GOOD = {"role": "assistant", "content": "yes"}
NUMPY = "[{'content': 'Q?', 'role': 'user'}\n {'content': 'yes', 'role': 'assistant'}]"


def sheet(path: Path, row: dict[str, str]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([row.keys(), row.values()])
    return str(path)


@pytest.mark.parametrize("written", [json.dumps, str, lambda value: json.dumps(value, indent=2), ascii])
def test_lists_in_cells_are_those_of_other_files(tmp_path, written):
    talk = [{"role": "user", "content": 'It\'s "Zürich"?\n'}, GOOD]
    other = [{"from": "human", "value": 'It\'s "Zürich"?\n'}, {"from": "gpt", "value": "no"}]
    path = sheet(tmp_path / "c.csv", {"chosen": written(talk), "rejected": written(other)})
    (pair,) = read_comparisons(path, labels="required")
    assert (pair.instruction, pair.chosen, pair.rejected) == ('It\'s "Zürich"?', "yes", "no")
    cells = {"context": written(talk[:1]), "response1": "yes", "response2": "no", "overall_preference": "-1"}
    (pair,) = read_comparisons(sheet(tmp_path / "h.csv", cells), labels="required")
    assert (pair.instruction, pair.label) == ('It\'s "Zürich"?', "A")
    (one,) = read_instructions(sheet(tmp_path / "i.csv", {"messages": written(talk)}))
    assert one.text == 'It\'s "Zürich"?'
    ranked = {"prompt": written(talk[:1]), "responses": written(["it's", 'a "b"', "c"])}
    (ranking,) = read_rankings(sheet(tmp_path / "r.csv", ranked))
    assert (ranking.instruction, ranking.responses) == ('It\'s "Zürich"?', ("it's", 'a "b"', "c"))


@pytest.mark.parametrize(
    "cell",
    [
        NUMPY,
        "array([{'content': 'Q?', 'role': 'user'}], dtype=object)",
        '[{"role": "user", "content": "Q?"}, {"role": "assis',
        "[{'from': 'human', 'value': 'Q' 'R'}]",
        "[{'role': 'user', 'content': open('x')}]",
        "[" + "{'role': 'user', 'content': 'Q?'}, " * 40_000 + "]",
    ],
)
def test_lists_of_messages_in_another_form_are_refused_by_name(tmp_path, cell):
    for row in (
        {"messages": cell},
        {"prompt": cell, "chosen": "yes", "rejected": "no"},
        {"prompt": "Q?", "chosen": "yes", "rejected": cell},
        {"context": cell, "response1": "yes", "response2": "no", "overall_preference": "-1"},
    ):
        column = next(name for name, value in row.items() if value is cell)
        with raises("data_invalid", "x.csv, line 2", column):
            read = read_instructions if column == "messages" else load_pairs
            read(sheet(tmp_path / "x.csv", row))


@pytest.mark.parametrize("cell", ["['a' 'b']", "['a',]", "array(['a'], dtype=object)", "['a', b'c']"])
def test_lists_of_responses_in_another_form_are_refused(tmp_path, cell):
    with raises("data_invalid", "r.csv, line 2", "responses"):
        read_rankings(sheet(tmp_path / "r.csv", {"prompt": "Q?", "responses": cell}))


@pytest.mark.parametrize("text", ['[{"x": 1}]', "[{x}, {y}] is code", "[INST] role: content", "['a' 'b']"])
def test_texts_that_only_look_like_lists_stay_texts(tmp_path, text):
    (pair,) = load_pairs(sheet(tmp_path / "t.csv", {"prompt": f"{text} ?", "chosen": text, "rejected": "no"}))
    assert pair["instruction"] == f"{text} ?"
    assert text in (pair["response_a"], pair["response_b"])


@pytest.mark.parametrize("column", ["prompt", "response_a", "response_b"])
@pytest.mark.parametrize("cell", ['["a",]', '["a"', "['a' 'b']", '["a", 3]', "[null, {}]"])
def test_one_broken_cell_of_an_arena_row_is_refused(tmp_path, column, cell):
    row = {"prompt": '["Q?"]', "response_a": "['yes']", "response_b": '["no"]', "winner_model_a": "1"}
    (pair,) = read_comparisons(sheet(tmp_path / "a.csv", row), labels="required")
    assert (pair.instruction, pair.chosen, pair.rejected) == ("Q?", "yes", "no")
    with raises("data_invalid", "a.csv, line 2", column):
        read_comparisons(sheet(tmp_path / "a.csv", row | {column: cell}), labels="required")
    plain = row | {"prompt": "List?", "response_a": cell, "response_b": "no"}
    (pair,) = read_comparisons(sheet(tmp_path / "b.csv", plain), labels="required")
    assert (pair.instruction, pair.chosen) == ("List?", cell)


# ---- other written forms of conversations -------------------------------------

ASK = [{"role": "user", "content": "Which river?"}]
SAID = [{"role": "assistant", "content": "The Po."}]


def test_tuples_of_messages_are_read(tmp_path):
    row = {"prompt": str(tuple(ASK)), "chosen": str(tuple(SAID)), "rejected": "No."}
    (pair,) = read_comparisons(sheet(tmp_path / "t.csv", row), labels="required")
    assert (pair.instruction, pair.chosen, pair.rejected) == ("Which river?", "The Po.", "No.")
    (one,) = read_instructions(sheet(tmp_path / "m.csv", {"messages": str((*ASK, *SAID))}))
    assert one.text == "Which river?"


FORMS = [
    str(ASK[0]),
    json.dumps(ASK[0]),
    str([ASK]),
    str([collections.OrderedDict(ASK[0])]),
    str(collections.OrderedDict(ASK[0])),
    f"deque({ASK})",
    str(json.dumps(ASK).encode()),
    str(b"Which river?"),
    json.dumps(json.dumps(ASK)),
    json.dumps({"messages": ASK}),
    json.dumps({"conversations": [{"from": "human", "value": "Which river?"}]}),
    json.dumps([{"speaker": "user", "text": "Which river?"}]),
    json.dumps([{"author": "human", "utterance": "Which river?"}]),
    str([("user", "Which river?"), ("assistant", "The Po.")]),
    json.dumps([["human", "Which river?"]]),
    json.dumps([{"user": "Which river?"}, {"assistant": "The Po."}]),
    json.dumps({"user": "Which river?", "assistant": "The Po."}),
    "[{role: 'user', content: 'Which river?'}]",
    "[ChatMessage(role='user', content='Which river?')]",
]


@pytest.mark.parametrize("cell", FORMS)
def test_conversations_in_forms_that_are_not_read_are_refused_by_name(tmp_path, cell):
    fine = {"prompt": "Q?", "chosen": "yes", "rejected": "no"}
    for column, reader in (
        ("prompt", load_pairs),
        ("rejected", load_pairs),
        ("prompt", read_instructions),
        ("messages", read_instructions),
    ):
        row = {column: cell} if reader is read_instructions else fine | {column: cell}
        with raises("data_invalid", "f.csv, line 2", column):
            reader(sheet(tmp_path / "f.csv", row))
    with raises("data_invalid", "f.csv, line 2", "prompt"):
        read_rankings(sheet(tmp_path / "f.csv", {"prompt": cell, "responses": '["a", "b"]'}))
    for row in ({"prompt": "Q?", "response": cell}, {"prompt": "Q?", "response": "a", "baseline": cell}):
        with raises("data_invalid", "f.csv, line 2", list(row)[-1]):
            read_scorings(sheet(tmp_path / "f.csv", row))
    with raises("data_invalid", "f.csv, line 2", "responses"):
        read_rankings(sheet(tmp_path / "f.csv", {"prompt": "Q?", "responses": json.dumps([cell, cell])}))


CODE = [
    "[{'role': 'admin'}]",
    "[{'role': 'user', 'content': 'x'}]",
    '{"messages": [{"role": "user", "content": open("x")}]}',
    "b'abc'",
    "[('user', 'bob')]",
    "<|im_start|>user\nhi<|im_end|>",
    "User: hi\nBot: hello",
]


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("column", ["prompt", "response_a", "response_b"])
def test_code_in_a_column_of_texts_is_text(tmp_path, code, column):
    rows = [
        {"prompt": f"Task {number}", "response_a": "yes", "response_b": "no", "label": "A"}
        for number in range(4)
    ]
    readable = code in (CODE[1], CODE[5])
    pairs = read(tmp_path, *rows[:3], rows[3] | {column: code})
    if column == "prompt":
        assert pairs[3].instruction == ({CODE[1]: "x", CODE[5]: "hi"}[code] if readable else code)
    else:
        assert getattr(pairs[3], column) == code
    assert [pair.instruction for pair in pairs[:3]] == ["Task 0", "Task 1", "Task 2"]


def test_a_single_answer_in_code_without_a_text_is_text(tmp_path):
    row = {"prompt": "Users?", "response_a": CODE[0], "response_b": '[{"role": "admin"}]', "label": "B"}
    assert read(tmp_path, row)[0].chosen == '[{"role": "admin"}]'


def test_a_row_of_conversations_in_a_table_of_texts_is_parted(tmp_path):
    rows = [{"prompt": f"Task {number}", "chosen": "yes", "rejected": "no"} for number in range(4)]
    other = {"prompt": "Which river?", "chosen": json.dumps(ASK + SAID), "rejected": json.dumps([*ASK, GOOD])}
    assert [pair.chosen for pair in read(tmp_path, *rows, other)] == ["yes"] * 4 + ["The Po."]
    # Two answers in code to another question.
    pairs = read(tmp_path, *rows, other | {"prompt": "Write an example."})
    assert pairs[-1].chosen == json.dumps(ASK + SAID)


def test_most_cells_decide_that_a_column_holds_conversations(tmp_path):
    rows = [{"prompt": json.dumps(ASK), "chosen": f"yes {number}", "rejected": "no"} for number in range(3)]
    (*_, last) = read(tmp_path, *rows, rows[0] | {"prompt": "Plain?"})
    assert last.instruction == "Plain?"
    with raises("data_invalid", "p.jsonl, line 4", "prompt"):
        read(tmp_path, *rows, rows[0] | {"prompt": '[{"role": "user", "content": "Which'})


# ---- lists of texts by turn ---------------------------------------------------


@pytest.mark.parametrize(
    "label", [{"winner": "model_a"}, {"label": "A"}, {"overall_preference": -1}, {"annotator1": 1}]
)
@pytest.mark.parametrize("written", [json.dumps, str, list])
def test_lists_by_turn_are_read_with_any_label(tmp_path, label, written):
    row = {
        "prompt": written(["Hi", "Which river?"]),
        "response_a": written(["Hello", "The Po."]),
        "response_b": written(["Hello", "No."]),
    }
    (pair,) = read(tmp_path, row | label)
    assert pair.instruction == "User:\nHi\n\nAssistant:\nHello\n\nUser:\nWhich river?"
    assert (pair.chosen, pair.rejected) == ("The Po.", "No.")


def test_lists_by_turn_of_a_chosen_response_and_without_a_label(tmp_path):
    chosen = {"prompt": '["Which river?"]', "chosen": '["The Po."]', "rejected": '["No."]'}
    assert read(tmp_path, chosen)[0].chosen == "The Po."
    row = {"prompt": '["Which river?"]', "response_a": '["The Po."]', "response_b": "['No.']"}
    (pair,) = load_pairs(sheet(tmp_path / "test.csv", row))
    assert (pair["instruction"], pair["response_b"]) == ("Which river?", "No.")


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "Which river?"},
        {"response_a": "The Po."},
        {"response_b": '["No.", "Never."]'},
        {"prompt": '["Which river?", 1]'},
    ],
)
def test_rows_of_an_arena_table_that_are_no_lists_are_refused(tmp_path, change):
    row = {"prompt": '["Which river?"]', "response_a": '["The Po."]', "response_b": '["No."]', "winner": "a"}
    with raises("data_invalid", "p.jsonl, line 3"):
        read(tmp_path, row, row | {"prompt": '["Which sea?"]'}, row | change)


def test_a_plain_prompt_of_lists_is_refused_where_one_column_is_one_label(tmp_path):
    row = {"prompt": "Which river?", "response_a": '["The Po."]', "response_b": '["No."]'}
    with raises("data_invalid", "p.jsonl, line 1", "prompt"):
        read(tmp_path, row | {"winner_model_a": 1, "winner_model_b": 0})
    # Elsewhere the answers may be JSON.
    assert read(tmp_path, row | {"winner": "model_a"})[0].chosen == '["The Po."]'


def test_lists_of_texts_alone_are_refused(tmp_path):
    cells = {"prompt": '["Which river?", "And sea?"]'}
    for row, reader in (
        (cells, read_instructions),
        (cells | {"chosen": "yes", "rejected": "no"}, load_pairs),
        (cells | {"response": "yes"}, read_scorings),
        (cells | {"responses": '["yes"]'}, read_rankings),
    ):
        with raises("data_invalid", "l.csv, line 2", "prompt"):
            reader(sheet(tmp_path / "l.csv", row))


@pytest.mark.parametrize("written", [json.dumps, str, lambda texts: " ".join(str(texts).split(", "))])
def test_lists_of_chosen_and_rejected_responses_in_texts_are_refused(tmp_path, written):
    row = {"chosen": written(["it's", "b", "c"]), "rejected": written(["d", "e", "f"])}
    rows = [{"prompt": "Which river?"} | row, {"prompt": "Which sea?"} | row]
    with raises("data_invalid", "p.jsonl, line 1", "chosen and rejected", "--benchmark"):
        read(tmp_path, *rows)
    # One answer may be a list.
    assert read(tmp_path, rows[0])[0].chosen == row["chosen"]


def test_answers_that_are_lists_stay_texts(tmp_path):
    rows = [
        {"prompt": f"Name {n} rivers.", "chosen": json.dumps(["Po"] * n), "rejected": '["Rhine"]'}
        for n in (1, 2)
    ]
    assert [pair.chosen for pair in read(tmp_path, *rows)] == ['["Po"]', '["Po", "Po"]']
    ones = [row | {"chosen": '["Po"]'} for row in rows]
    assert [pair.rejected for pair in read(tmp_path, *ones)] == ['["Rhine"]'] * 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tool_calls", [{"id": "1", "type": "function", "function": {"name": "w", "arguments": "{}"}}]),
        ("function_call", {"name": "w"}),
        ("reasoning_content", "Rivers differ."),
        ("refusal", "I cannot say."),
    ],
)
def test_parts_of_turns_besides_their_text_are_refused_by_name(tmp_path, field, value):
    said = {"role": "assistant", "content": "", field: value}
    for row in (
        {"prompt": "Which river?", "chosen": [said], "rejected": [GOOD]},
        {"chosen": [*ASK, said], "rejected": [*ASK, GOOD]},
    ):
        with raises("data_invalid", "p.jsonl, line 1", "chosen", field):
            read(tmp_path, row)
    path = lines(tmp_path / "i.jsonl", {"messages": [*ASK, said, *ASK]})
    with raises("data_invalid", "i.jsonl, line 1", field):
        read_instructions(path)
    # Chat logs have these fields empty on every message.
    said = GOOD | {field: None}
    assert read(tmp_path, {"prompt": "Which?", "chosen": [said], "rejected": "x"})[0].chosen == "yes"


@pytest.mark.parametrize("prompt", [{"role": "user"}, float("nan"), 3, ["2+2?"], " "])
@pytest.mark.parametrize("name", ["prompt", "question"])
def test_errors_name_the_prompt_as_the_file_does(tmp_path, prompt, name):
    row = {name: prompt, "response_a": "x", "response_b": "y", "label": "A"}
    with raises("data_invalid", "p.jsonl, line 1", f"column {name}"):
        read(tmp_path, row)
    with raises("data_invalid", "s.jsonl, line 1", f"column {name}"):
        read_scorings(lines(tmp_path / "s.jsonl", {name: prompt, "response": "x"}))


LONG = 60_000


@pytest.mark.parametrize(
    "cell",
    [
        "[{" + "\\" * LONG,
        '[{"role": "x' + "\\" * LONG + "user",
        "[{role" + "\\" * LONG,
        '[{"user' + "\\" * LONG,
        "[{'" + "\\'user" * LONG,
        "role " * LONG + "[{",
        "[{role" + " " * LONG,
        " " * LONG + "x",
        "[" * LONG,
        "[" + " " * LONG,
        "b'" + "' " * LONG + "x",
        "f(" * LONG,
        "a" * LONG + "(",
        "\\'" * LONG,
        "A chat between a curious " + " USER" * LONG,
        "### Instruction: a\n" + "### Input: b\n" * LONG,
        "\n\nHuman" * LONG,
        "<|im_start|>" * LONG,
    ],
    ids=lambda cell: ascii(cell[:24]),
)
def test_no_cell_takes_time_that_grows_with_its_square(cell):
    with cpu_limit(5):
        begins_conversation(cell)
        begins_texts(cell)


def test_a_response_of_backslashes_is_text(tmp_path):
    response = "[{" + "\\" * LONG
    with cpu_limit(5):
        (pair,) = read(tmp_path, {"prompt": "Q?", "response_a": response, "response_b": "no", "label": "A"})
    assert pair.response_a == response


def test_escaped_quotes_around_a_role_are_seen(tmp_path):
    talk = json.dumps(json.dumps([{"role": "user", "content": "Q?"}, GOOD]))
    assert begins_conversation(talk)
    assert begins_conversation(talk.replace("role", "speaker"))
