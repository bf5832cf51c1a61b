"""Prompts that make worse responses without labels, parsers of their completions, and checks of a pair.

The prompts are lists of {"role", "content"}. The prompt for a modified instruction contains worked examples,
because small models answer an instruction that they are merely instructed to change. The parsers accept what
is clearly marked and return None for everything else; nothing is guessed. They do not know whether a
completion was cut off by its budget: the caller counts such completions as unparsable.
"""

import dataclasses
import itertools
import re

from ste_jax.config_field import INHERITED, config_field
from ste_jax.errors import SteError
from ste_jax.text.chat import Message
from ste_jax.text.sanitize import sanitize

_CHANGE = "You change instructions. You never answer them."
_CHANGE_AND_ANSWER = "You change an instruction, then answer the changed one, in the tags you are shown."
_EXAMPLES = (
    ("Why do cats purr?", "How should I introduce a new cat to my old dog?"),
    (
        "Write a poem about the sea in winter.",
        "Describe how lighthouse keepers spent a winter day two hundred years ago.",
    ),
    (
        "how can i get coffee stains out of a cotton shirt",
        "What should I look for when I buy a cotton shirt for the office?",
    ),
    (
        "Who wrote the novel Frankenstein?",
        "Name three films in which a scientist creates life, with their years.",
    ),
    (
        "Write a Python function that sorts a list of numbers.",
        "Explain when a dictionary is a better choice than a list in Python.",
    ),
)
_BOTH_EXAMPLE = """\
<new_instruction>
How should I introduce a new cat to my old dog?
</new_instruction>
<answer>
Keep them in separate rooms for the first days and swap their blankets, so that each knows the other's
smell. Then let them meet on short, quiet visits, with the dog on a lead and a high place for the cat to
retreat to. Leave them alone together only when several visits have gone well.
</answer>"""
_ASK_NEW = "Write a new instruction on a related subject that asks for something else."
_ASK_BOTH = """\
First, in <new_instruction> tags, write a new instruction: close to this one in subject and form, yet asking
for something else, so that whoever answers it well has missed the point of this one. Then, in <answer>
tags, answer the new instruction as well as you can, about as long as the response above. Write no more."""
_ASK_DEGRADED = """\
Write another response to this instruction that is plainly of lower quality than the one above: for instance
with wrong facts, a faulty step, or a part of the task left out. It should look like a sincere attempt, be
about as long, and say nothing of its faults. Write the response only."""


def modify_prompt(instruction: str) -> list[Message]:
    """Returns the messages that ask for a new instruction x' on a related subject with another task."""
    messages = [Message("system", _CHANGE)]
    for before, after in _EXAMPLES:
        messages += [Message("user", _tagged("instruction", before) + _ASK_NEW), Message("assistant", after)]
    return [*messages, Message("user", _tagged("instruction", instruction) + _ASK_NEW)]


def modify_and_answer_prompt(instruction: str, response: str) -> list[Message]:
    """Returns the messages that ask, in one call, for x' and a good answer to it."""
    return [
        Message("system", _CHANGE_AND_ANSWER),
        Message("user", _both_tagged("Why do cats purr?", "They make their larynx vibrate.") + _ASK_BOTH),
        Message("assistant", _BOTH_EXAMPLE),
        Message("user", _both_tagged(instruction, response) + _ASK_BOTH),
    ]


def degraded_answer_prompt(instruction: str, response: str) -> list[Message]:
    """Returns the messages that ask for a worse answer to `instruction` than `response`."""
    return [Message("user", _both_tagged(instruction, response) + _ASK_DEGRADED)]


def _both_tagged(instruction: str, response: str) -> str:
    return _tagged("instruction", instruction) + _tagged("response", response)


def _tagged(tag: str, text: str) -> str:
    tags = [f"<{slash}{name}>" for name in ("instruction", "response") for slash in ("", "/")]
    return f"<{tag}>\n{sanitize(text, tags)}\n</{tag}>\n"


_NOUN = r"(?:instruction|question|prompt|task|request|version)"
_KIND = r"(?:new|modified|changed|revised|different|related|another|alternative)"
_LABEL = rf"(?:the\s+)?(?:new|modified|changed|revised)\s+{_NOUN}(?:\s+is)?[\s*]*:[\s*]*"
_LEAD_IN = re.compile(
    r"[\s*#]*(?:(?:sure|certainly|of course|okay|ok|absolutely)\b[^\n:]{0,40}?[!.,]\s*)?"
    rf"(?:here(?:['’]s|\s+is)\b[^\n:]{{0,40}}\b{_KIND}\b[^\n:]{{0,60}}:[\s*]*|{_LABEL})",
    re.I,
)
_SEVERAL = re.compile(r"[^\n:]{0,60}\bhere\s+are\b[^\n:]{0,80}:|1[.)]\s[^\n]*\n\s*2[.)]\s", re.I)
_NEW_LABEL = re.compile(rf"^[ \t*#]*{_LABEL}", re.I | re.M)
_ANSWER_LABEL = re.compile(
    rf"^[ \t*#]*(?:answer|response)(?:\s+to\s+the\s+new\s+{_NOUN})?[ \t*]*:[ \t*]*", re.I | re.M
)
_TAG = re.compile(r"</?(?:new_)?instruction>|</?answer>", re.I)
_QUOTED_LINE = re.compile(r'["“]([^"“”]+)["”][ \t]*(?:\n|$)')
_WRAPPED = re.compile(r'"[^"]+"|“[^“”]+”|\'[^\']+\'|\*\*[^*]+\*\*|`[^`]+`')


def parse_modified(completion: str) -> str | None:
    """Returns the modified instruction in a completion of `modify_prompt`, or None if it is unclear.

    Tags, a lead-in such as "Here is a modified instruction:", a label, and quotes or bold type around the
    whole are removed. A quoted line after a lead-in is the instruction, whatever follows. Lists of several
    instructions, second labels and refusals give None.
    """
    if "<new_instruction>" in completion.lower():
        after = _after(completion, "<new_instruction>")
        return None if after is None else _clean(_TAG.split(after, maxsplit=1)[0])
    return _clean(completion)


def _after(text: str, tag: str) -> str | None:
    """Returns the text after `tag`, or None if it does not occur exactly once."""
    parts = re.split(tag, text, flags=re.I)
    return parts[1] if len(parts) == 2 else None


def _clean(text: str) -> str | None:
    text = text.strip()
    if _SEVERAL.match(text):
        return None
    lead = _LEAD_IN.match(text)
    rest = text[lead.end() :].strip() if lead else text
    quoted = _QUOTED_LINE.match(rest) if lead else None
    rest = quoted[1].strip() if quoted else rest
    while _WRAPPED.fullmatch(rest):
        rest = (rest[2:-2] if rest.startswith("**") else rest[1:-1]).strip()
    unclear = not re.search(r"\w", rest) or _TAG.search(rest) or _NEW_LABEL.search(rest) or is_refusal(rest)
    return None if unclear else rest


def parse_modified_and_answer(completion: str) -> tuple[str, str] | None:
    """Returns (modified instruction, answer) in a completion of `modify_and_answer_prompt`, or None.

    The parts are either in tags, whose closing tags may be missing, or after the labels "New instruction:"
    and "Answer:", in this order and each once.
    """
    if "<new_instruction>" in completion.lower():
        after_new, after_answer = (_after(completion, tag) for tag in ("<new_instruction>", "<answer>"))
        if after_new is None or after_answer is None or len(after_answer) > len(after_new):
            return None
        modified = _clean(_TAG.split(after_new, maxsplit=1)[0])
        answer = re.split("</answer>", after_answer, maxsplit=1, flags=re.I)[0].strip()
    else:
        news, labels = list(_NEW_LABEL.finditer(completion)), list(_ANSWER_LABEL.finditer(completion))
        if len(news) != 1 or len(labels) != 1 or news[0].end() > labels[0].start():
            return None
        modified = _clean(completion[news[0].end() : labels[0].start()])
        answer = completion[labels[0].end() :].strip()
    return (modified, answer) if modified and answer else None


@dataclasses.dataclass(frozen=True)
class PairChecks:
    """Thresholds of the checks of a constructed pair.

    Attributes:
      max_modified_similarity: maximum similarity of x' and x, from 0 to 1 (see `similarity`).
      max_response_similarity: maximum similarity of the two responses.
      max_length_ratio: maximum ratio of the lengths of the two responses in characters.
      drop_refusals: drops pairs with a response that begins with a refusal. Set False where refusing is the
        right answer.
    """

    max_modified_similarity: float = config_field(0.8, affects=INHERITED)
    max_response_similarity: float = config_field(0.8, affects=INHERITED)
    max_length_ratio: float = config_field(10.0, affects=INHERITED)
    drop_refusals: bool = config_field(True, affects=INHERITED)

    def __post_init__(self):
        for field in ("max_modified_similarity", "max_response_similarity"):
            if not 0.0 < getattr(self, field) <= 1.0:
                raise SteError(
                    "config_invalid",
                    f"pairs.checks.{field} must be above 0 and at most 1, not {getattr(self, field)}",
                )
        if not self.max_length_ratio >= 1.0:
            raise SteError(
                "config_invalid",
                f"pairs.checks.max_length_ratio must be 1 or more, not {self.max_length_ratio}",
            )


def check_modified(instruction: str, modified: str | None, checks: PairChecks) -> str | None:
    """Returns the reason to refuse x', or None; `modified` is None if it could not be parsed."""
    if modified is None:
        return "modified_unparsable"
    if _plain(instruction) == _plain(modified):
        return "modified_equal"
    return "modified_near" if similarity(instruction, modified) > checks.max_modified_similarity else None


def check_pair(
    instruction: str, modified: str | None, chosen: str, rejected: str, checks: PairChecks
) -> str | None:
    """Returns the reason to refuse a pair, or None.

    Args:
      instruction: the instruction x.
      modified: the modified instruction x', or None if both responses answer x.
      chosen: the response that should be better.
      rejected: the response that should be worse.
      checks: the thresholds.
    """
    reason = None if modified is None else check_modified(instruction, modified, checks)
    if reason:
        return reason
    if not chosen.strip() or not rejected.strip():
        return "empty_response"
    if checks.drop_refusals and (is_refusal(chosen) or is_refusal(rejected)):
        return "refusal"
    if _plain(chosen) == _plain(rejected):
        return "responses_equal"
    if similarity(chosen, rejected) > checks.max_response_similarity:
        return "responses_near"
    short, long = sorted((len(chosen.strip()), len(rejected.strip())))
    return "length_ratio" if long > checks.max_length_ratio * short else None


def similarity(left: str, right: str) -> float:
    """Returns the Jaccard similarity of the words and pairs of adjacent words of two texts, from 0 to 1.

    Case is ignored. Punctuation counts as words, since nothing else distinguishes "3 + 4" from "3 - 4".
    """
    a, b = _grams(left), _grams(right)
    return len(a & b) / len(a | b) if a | b else 1.0


def _grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+|[^\w\s]", text.casefold())
    return {(word,) for word in words} | set(itertools.pairwise(words))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .!?\"'“”")


_CANNOT = r"i(?: can't| cannot| can not| won't| will not|(?: am|'m) (?:unable|not able) to)"
_SORRY = r"(?:i(?:'m| am)(?: so| very| really)? sorry|sorry|i apologi[sz]e|as an ai\b[^.,]{0,40})"
_REGRET = rf"{_SORRY}[.,!]? (?:but )?"
_HELP = "help|assist|comply|fulfil|do that|do this|answer that|answer this|provide that|provide this|support"
_WORK = "provide|answer|generate|create|write|engage|continue|offer|give|discuss|share|participate"
_REFUSAL = re.compile(rf"(?:{_REGRET}){{1,2}}{_CANNOT} (?:{_HELP}|{_WORK})|{_CANNOT} (?:{_HELP})")


def is_refusal(text: str) -> bool:
    """Returns True if a response begins with a clear refusal. Disclaimers before an answer do not count."""
    opening = " ".join(text[:200].replace("’", "'").lower().split())
    return bool(_REFUSAL.match(opening))
