"""Programs for the README of an exported judge. They read `judge.json` and run without ste_jax."""

_HEAD = r'''
import datetime
import json
import math
import re
from pathlib import Path

LIBRARIES

# This folder. From the hub: Path(huggingface_hub.snapshot_download("OWNER/NAME")).
FOLDER = Path(".")
JUDGE = json.loads((FOLDER / "judge.json").read_text("utf-8"))
DATE = datetime.datetime.fromisoformat(JUDGE["date"])
VERDICT = re.compile(r"\[\[([AB])\]\]")
tokenizer = AutoTokenizer.from_pretrained(FOLDER)


def plain(text):
    """Encodes text without a token at its beginning."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


a, b = (plain(JUDGE["opening"] + letter + "]]") for letter in "AB")
letter_at = next(i for i, pair in enumerate(zip(a, b)) if pair[0] != pair[1])
OPENING, LETTERS = a[:letter_at], (a[letter_at], b[letter_at])


def defuse(text):
    """Takes the marks off what imitates a delimiter of the prompt, a verdict or a control token."""
    for line in JUDGE["delimiters"]:
        marks = r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", line)))
        if line[0] not in "<[({":  # a heading
            marks = rf"(?<![^\n]){marks}(?=[ \t]*(?:\n|$|[:.,;!?]))"
        text = re.sub(marks, lambda m: "(" + re.sub(r"^\W+|\W+$", "", m[0]) + ")", text, flags=re.I)
    for token in tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(token.content, token.content[0] + " " + token.content[1:])
    return re.sub(r"\[\s*\[\s*([AB])\s*\]\s*\]", r"[[ \1 ]]", text, flags=re.I)


def prompt_ids(instruction, first, second, **more):
    """Returns the prompt that shows two responses in this order (a pointwise judge: the first alone).

    `more` are the texts of other placeholders of the prompt, such as reference.
    """
    texts = {"instruction": instruction, "response_a": first, "response_b": second, "response": first}
    texts = {name: defuse(text) for name, text in (texts | more).items()}
    texts["rubric"] = JUDGE["rubric"]
    user = re.sub(r"\{([^\W\d]\w*)\}", lambda m: texts[m[1]], JUDGE["user"])
    messages = [{"role": "user", "content": user}]
    if JUDGE["system"] and JUDGE["has_system_role"]:
        messages.insert(0, {"role": "system", "content": JUDGE["system"]})
    elif JUDGE["system"]:
        messages[0]["content"] = JUDGE["system"] + "\n\n" + user
    text = tokenizer.apply_chat_template(
        messages,
        add_generation_prompt=True,
        tokenize=False,
        strftime_now=DATE.strftime,
        date_string=DATE.strftime("%d %b %Y"),
    )
    ids = plain(text)
    return [tokenizer.bos_token_id, *ids] if JUDGE["needs_bos"] and tokenizer.bos_token_id not in ids else ids
'''

_TRANSFORMERS = '''

model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=JUDGE["dtype"]).to(DEVICE)
STOP = model.generation_config.eos_token_id


def complete(prompt):
    """Returns the most likely judgment, at most JUDGE["max_new_tokens"] tokens, without its stop token."""
    if not JUDGE["max_new_tokens"]:
        return []
    ids = torch.tensor([prompt], device=DEVICE)
    settings = {"do_sample": False, "max_new_tokens": JUDGE["max_new_tokens"], "pad_token_id": STOP[0]}
    found = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()
    return found[:-1] if found[-1] in STOP else found


@torch.no_grad()
def log_odds(instruction, first, second, **more):
    """Returns log P(A) - log P(B) at the verdict, or None if there is none and none is forced."""
    prompt = prompt_ids(instruction, first, second, **more)
    judgment = complete(prompt)
    verdicts = list(VERDICT.finditer(tokenizer.decode(judgment)))
    if verdicts:  # the last one counts: cut before its letter
        end = len(judgment)
        while end > 1 and len(tokenizer.decode(judgment[: end - 1])) > verdicts[-1].start(1):
            end -= 1
        if judgment[end - 1] not in LETTERS:
            return math.log(99) if verdicts[-1][1] == "A" else -math.log(99)
        judgment = judgment[: end - 1]
    elif JUDGE["force_verdict"]:
        judgment = judgment + OPENING
    else:
        return None
    logits = model(torch.tensor([prompt + judgment], device=DEVICE)).logits[0, -1].float()
    return float(logits[LETTERS[0]] - logits[LETTERS[1]])


def compare(instruction, response_a, response_b, **more):
    """Judges both orders. Returns the better response (None: no verdict) and the probability of A."""
    orders = [
        log_odds(instruction, *shown, **more)
        for shown in ((response_a, response_b), (response_b, response_a))
    ]
    if None in orders:
        return None, None
    pooled = (orders[0] - orders[1]) / 2
    probability = 1 / (1 + math.exp(-pooled / JUDGE["temperature"]))
    return ("A" if pooled > 0 else "B"), probability


print(*compare("Name a river.", "The Rhine is a river.", "A rose is a flower."))
'''

_VLLM = '''

llm = LLM(str(FOLDER), dtype=JUDGE["dtype"])
STOP = json.loads((FOLDER / "generation_config.json").read_text())["eos_token_id"]


def complete(prompt, budget, **options):
    """Returns the ids of the most likely completion, without its stop token."""
    settings = SamplingParams(temperature=0.0, max_tokens=budget, stop_token_ids=STOP, **options)
    found = list(llm.generate([{"prompt_token_ids": prompt}], settings)[0].outputs[0].token_ids)
    return found[:-1] if found and found[-1] in STOP else found


def verdict(instruction, first, second, **more):
    """Returns "A" if the first response is better, "B" if the second is, or None."""
    prompt = prompt_ids(instruction, first, second, **more)
    judgment = complete(prompt, JUDGE["max_new_tokens"]) if JUDGE["max_new_tokens"] else []
    if verdicts := VERDICT.findall(tokenizer.decode(judgment)):
        return verdicts[-1]
    if not JUDGE["force_verdict"]:
        return None
    (letter,) = complete([*prompt, *judgment, *OPENING], 1, allowed_token_ids=list(LETTERS))
    return "AB"[LETTERS.index(letter)]


def compare(instruction, response_a, response_b, **more):
    """Returns the verdicts of both orders, as letters of the responses as given."""
    swapped = verdict(instruction, response_b, response_a, **more)
    return verdict(instruction, response_a, response_b, **more), {"A": "B", "B": "A", None: None}[swapped]


print(*compare("Name a river.", "The Rhine is a river.", "A rose is a flower."))
'''

_TRANSFORMERS_LIBRARIES = """
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""
_VLLM_LIBRARIES = """
from transformers import AutoTokenizer
from vllm import LLM, SamplingParams
"""


def transformers_snippet() -> str:
    """Returns a program that compares two responses with transformers."""
    return (_HEAD.replace("LIBRARIES", _TRANSFORMERS_LIBRARIES.strip()) + _TRANSFORMERS).strip()


def vllm_snippet() -> str:
    """Returns a program that compares two responses with vLLM."""
    head = _HEAD.replace("LIBRARIES", _VLLM_LIBRARIES.strip()).replace("import math\n", "")
    return (head + _VLLM).strip()
