"""Transcripts in cells, and responses that begin with their prompt: only the response is judged."""

import pytest

from ste_jax.benchmarks.benchmark import read_pairs_file
from ste_jax.data.comparisons import read_rankings, read_scorings
from ste_jax.data.overview import overview
from ste_jax.data.sources import read_instructions
from ste_jax.data.transcripts import transcript_turns
from tests.data.pair_files import lines, read
from tests.errors import raises

ASK = "Which river is longest?"
# A transcript up to the answer, and what ends an answer.
FORMS = {
    "chatml": (f"<|im_start|>user\n{ASK}<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n"),
    "llama3": (
        f"<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{ASK}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
    "gemma": (
        f"<bos><start_of_turn>user\n{ASK}<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>\n",
    ),
    "zephyr": (f"<|user|>\n{ASK}</s>\n<|assistant|>\n", "</s>"),
    "openassistant": (f"<|prompter|>{ASK}<|endoftext|><|assistant|>", "<|endoftext|>"),
    "llama2": (f"<s>[INST] {ASK} [/INST] ", "</s>"),
    "alpaca": (f"### Instruction:\n{ASK}\n\n### Response:\n", ""),
    "guanaco": (f"### Human: {ASK}### Assistant: ", ""),
    "vicuna": (f"USER: {ASK} ASSISTANT: ", "</s>"),
    "lines": (f"User: {ASK}\nAssistant: ", ""),
    "markdown": (f"**User:** {ASK}\n**Assistant:** ", ""),
    "koala": (f"BEGINNING OF CONVERSATION: USER: {ASK} GPT: ", ""),
    "openchat": (
        f"GPT4 Correct User: {ASK}<|end_of_turn|>GPT4 Correct Assistant: ",
        "<|end_of_turn|>",
    ),
    "phi4": (f"<|im_start|>user<|im_sep|>{ASK}<|im_end|><|im_start|>assistant<|im_sep|>", "<|im_end|>"),
    "llama4": (
        f"<|begin_of_text|><|header_start|>user<|header_end|>\n\n{ASK}<|eot|>"
        "<|header_start|>assistant<|header_end|>\n\n",
        "<|eot|>",
    ),
    "granite": (
        f"<|start_of_role|>user<|end_of_role|>{ASK}<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        "<|end_of_text|>",
    ),
    "command_r": (
        f"<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>{ASK}<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
    ),
    "deepseek": (f"<｜begin▁of▁sentence｜><｜User｜>{ASK}<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
    "glm": (f"[gMASK]<sop><|user|>\n{ASK}<|assistant|>\n", ""),
    "metharme": (f"<|user|>{ASK}<|model|>", ""),
    "windows": (f"\r\n\r\nHuman: {ASK}\r\n\r\nAssistant: ", ""),
    "anthropic": (f"\n\nHuman: {ASK}\n\nAssistant: ", ""),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("prompt", ["whole", "text", None])
@pytest.mark.parametrize("names", [("chosen", "rejected"), ("response_a", "response_b")])
def test_transcripts_lose_the_common_prompt(tmp_path, name, prompt, names):
    start, end = FORMS[name]
    row = {names[0]: f"{start}The Nile.{end}", names[1]: f"{start}The Po.{end}"}
    row |= {"prompt": {"whole": start, "text": ASK, None: None}[prompt]}
    (pair,) = read(tmp_path, row if names[0] == "chosen" else row | {"label": "A"})
    assert (pair.chosen, pair.rejected) == ("The Nile.", "The Po.")
    assert pair.instruction.replace("User:\n", "") == ASK


@pytest.mark.parametrize("name", [name for name in FORMS if name not in ("lines", "markdown")])
@pytest.mark.parametrize("column", ["instruction", "prompt", "text"])
def test_a_transcript_as_prompt_is_read_by_all_readers(tmp_path, name, column):
    start, end = FORMS[name]
    assert [one.text for one in read_instructions(lines(tmp_path / "i.jsonl", {column: start}))] == [ASK]
    if column == "text":
        path = lines(tmp_path / "t.jsonl", {"text": f"{start}The Nile.{end}"})
        assert [one.text for one in read_instructions(path)] == [ASK]
        return
    assert read(tmp_path, {column: start, "chosen": "Nile", "rejected": "Po"})[0].instruction == ASK
    assert read_scorings(lines(tmp_path / "s.jsonl", {column: start, "response": "x"}))[0].instruction == ASK
    ranked = lines(tmp_path / "r.jsonl", {column: start, "responses": ["x", "y"]})
    assert read_rankings(ranked)[0].instruction == ASK


def test_the_preamble_and_the_input_of_alpaca_stay(tmp_path):
    said = "Below is an instruction that describes a task, paired with an input. Write a response."
    start = f"{said}\n\n### Instruction:\nSum up.\n\n### Input:\nRain fell.\n\n### Response:\n"
    (pair,) = read(tmp_path, {"prompt": start, "chosen": f"{start}It rained.", "rejected": f"{start}Sun."})
    assert pair.instruction == f"System:\n{said}\n\nUser:\nSum up.\n\nRain fell."
    assert (pair.chosen, pair.rejected) == ("It rained.", "Sun.")


@pytest.mark.parametrize(
    "text",
    [
        "### Response: fine",
        "## Human: a heading",
        "Assistant: hello\nUser: hi",
        "USER: only one side",
        "[INST] is a mark",
        "As the User: said\nAssistant: x",
        "# Instruction\nx\n# Response\ny",
        "<b>bold</b>",
        "",
    ],
)
def test_other_texts_are_no_transcripts(text):
    assert transcript_turns(text) is None


def test_turns_go_on_after_the_prompt():
    turns = (("system", "Be kind."), ("user", "Hi"), ("assistant", "  x"))
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    assert transcript_turns(text) == [("system", "Be kind."), ("user", "Hi"), ("assistant", " x")]
    assert transcript_turns("### Human: a\n### Assistant: b\n### Human: c") == [
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]


# ---- responses that begin with the prompt -------------------------------------


@pytest.mark.parametrize(
    ("prompt", "between"),
    [
        (ASK, "\n\n"),
        (ASK, " "),
        ("Q: Which river?\nA:", " "),
        ("Q: Which river?\nA:", ""),
        ("Name a river", "\n"),
        ([{"role": "user", "content": ASK}], "\n"),
        ([{"from": "human", "value": ASK}], "\n"),
    ],
)
def test_a_prompt_that_both_responses_begin_with_is_taken_off(tmp_path, prompt, between):
    text = prompt if isinstance(prompt, str) else ASK
    for names in (("chosen", "rejected"), ("response_1", "response_2")):
        row = {"prompt": prompt, names[0]: f"{text}{between}The Nile.", names[1]: f"{text}{between}The Po."}
        (pair,) = read(tmp_path, row if names[0] == "chosen" else row | {"label": 1})
        assert (pair.instruction, pair.chosen, pair.rejected) == (text, "The Nile.", "The Po.")
    scored = {
        "prompt": prompt,
        "response": f"{text}{between}The Nile.",
        "baseline": f"{text}{between}The Po.",
    }
    (scoring,) = read_scorings(lines(tmp_path / "s.jsonl", scored))
    assert (scoring.response, scoring.baseline) == ("The Nile.", "The Po.")
    ranked = {"prompt": prompt, "responses": [f"{text}{between}{river}" for river in ("Nile", "Po", "")]}
    (ranking,) = read_rankings(lines(tmp_path / "r.jsonl", ranked))
    assert ranking.responses == ("Nile", "Po", "")


def test_the_indentation_of_a_response_stays(tmp_path):
    head = "def double(x):"
    row = {
        "prompt": f"{head}\n",
        "chosen": f"{head}\n    return 2 * x",
        "rejected": f"{head}\n\n  return x\n",
    }
    (pair,) = read(tmp_path, row)
    assert (pair.chosen, pair.rejected) == ("    return 2 * x", "  return x\n")


@pytest.mark.parametrize("mark", ["Question: ", "Instruction:\n", "[Q] ", "<q>"])
def test_a_prompt_behind_a_mark_in_both_responses_is_refused(tmp_path, mark):
    row = {"prompt": ASK, "chosen": f"{mark}{ASK}\nThe Nile.", "rejected": f"{mark}{ASK}\nThe Po."}
    plain = {"prompt": "Another?", "chosen": "yes", "rejected": "no"}
    with raises("data_invalid", "p.jsonl, line 2"):
        read(tmp_path, plain, row)


def test_single_answers_that_quote_the_prompt_stay(tmp_path):
    quoted = {"prompt": ASK, "chosen": f"{ASK} The Nile.", "rejected": f"{ASK} The Po."}
    plain = [{"prompt": f"Task {number}", "chosen": "yes", "rejected": "no"} for number in range(2)]
    assert read(tmp_path, quoted, *plain)[0].chosen == f"{ASK} The Nile."
    for row in (
        quoted | {"rejected": "The Po."},
        {"prompt": "Hi", "chosen": "Hi there.", "rejected": "Hi you."},
        {"prompt": "Add 1 and", "chosen": "Add 1 and2", "rejected": "Add 1 and3"},
        {"prompt": "The sea is", "chosen": "The sea is deep", "rejected": "The sea is not\ndeep"},
        {"prompt": "Once upon a time", "chosen": "Once upon a time I", "rejected": "Once upon a time we"},
    ):
        assert read(tmp_path, row)[0].chosen == row["chosen"]


def test_cut_rows_are_counted_and_warned_about(tmp_path, caplog):
    whole = {"prompt": ASK, "chosen": f"{ASK} The Nile.", "rejected": f"{ASK} The Po."}
    path = lines(tmp_path / "p.jsonl", whole, whole, whole | {"prompt": "Another?"})
    assert overview(path).counts["with the prompt taken off the responses"] == 2
    (warning, *_) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert (path in warning.getMessage(), "2 of 3 rows" in warning.getMessage()) == (True, True)
    scored = lines(tmp_path / "s.jsonl", {"prompt": ASK, "response": f"{ASK}\nThe Nile."})
    ranked = lines(tmp_path / "r.jsonl", {"prompt": ASK, "responses": [f"{ASK}\nNile", f"{ASK}\nPo"]})
    for path in (scored, ranked):
        assert overview(path).counts["with the prompt taken off the responses"] == 1


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_empty_responses_are_counted(tmp_path, name):
    path = tmp_path / name
    path.write_text("prompt,response_a,response_b,label\nQ?,a,,A\nR?, ,b,B\nS?,a,b,A\n")
    if name == "p.jsonl":
        rows = [["Q?", "a", "", "A"], ["R?", " ", "b", "B"], ["S?", "a", "b", "A"]]
        columns = ("prompt", "response_a", "response_b", "label")
        lines(path, *(dict(zip(columns, row, strict=True)) for row in rows))
    assert overview(str(path)).counts["empty responses"] == 2
    assert read_pairs_file(str(path)).notes["empty_responses"] == 2


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        (
            f"<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n{ASK} [/INST] The Nile.</s>",
            [("system", "Be brief."), ("user", f"{ASK} "), ("assistant", "The Nile.")],
        ),
        (
            f"<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]{ASK}[/INST]The Nile.</s>",
            [("system", "Be brief."), ("user", ASK), ("assistant", "The Nile.")],
        ),
    ],
)
def test_system_messages_of_llama_2_and_mistral_are_turns(text, turns):
    assert transcript_turns(text) == turns


def test_transcripts_of_unknown_templates_are_refused(tmp_path):
    harmony = f"<|start|>user<|message|>{ASK}<|end|><|start|>assistant<|channel|>final<|message|>The Nile."
    for row in ({"text": harmony}, {"instruction": harmony}):
        with raises("data_invalid", "i.jsonl, line 1"):
            read_instructions(lines(tmp_path / "i.jsonl", row))
    with raises("data_invalid", "p.jsonl, line 1", "prompt"):
        read(tmp_path, {"prompt": harmony, "chosen": "x", "rejected": "y"})
    token = "<|endoftext|> is which token?"
    assert read_instructions(lines(tmp_path / "i.jsonl", {"text": token}))[0].text == token


@pytest.mark.parametrize("end", ["<|im_end|>", "<|eot_id|>\n", "</s>"])
def test_end_tokens_of_most_responses_are_taken_off(tmp_path, end):
    prompt = f"<|im_start|>user\n{ASK}<|im_end|>\n<|im_start|>assistant\n"
    rows = [{"prompt": prompt, "chosen": f"The Nile {n}.{end}", "rejected": f"The Po.{end}"} for n in "12"]
    pairs = read(tmp_path, *rows, rows[0] | {"prompt": "Plain?", "chosen": "The Nile."})
    assert [pair.chosen for pair in pairs] == ["The Nile 1.", "The Nile 2.", "The Nile."]
    assert {pair.rejected for pair in pairs} == {"The Po."}
    row = {"instruction": ASK, "response": f"The Nile.{end}"}
    assert read_scorings(lines(tmp_path / "s.jsonl", row))[0].response == "The Nile."
    row = {"instruction": ASK, "responses": [f"The Nile.{end}", "The Po."]}
    assert read_rankings(lines(tmp_path / "r.jsonl", row))[0].responses == ("The Nile.", "The Po.")


def test_an_answer_about_an_end_token_keeps_it(tmp_path):
    rows = [{"prompt": ASK, "chosen": f"The Nile {n}.", "rejected": "The Po."} for n in range(3)]
    about = {"prompt": "How does ChatML end a turn?", "chosen": "With <|im_end|>", "rejected": "With a dot"}
    assert read(tmp_path, *rows, about)[-1].chosen == "With <|im_end|>"
