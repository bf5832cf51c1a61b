"""Reads transcripts: conversations that are written as one text, with a mark before every turn."""

import re
from typing import NamedTuple

from ste_jax.data.messages import Turn, known_role


class _Form(NamedTuple):
    """A way to write transcripts.

    Attributes:
      mark: what stands before a turn, with the name of its role as the only group.
      preamble: text that may stand before the first mark.
      is_certain: True if no other text begins with the mark. Otherwise an answer might begin with it, so that
        a transcript needs turns of both sides.
    """

    mark: re.Pattern[str]
    preamble: str = ""
    is_certain: bool = False


_HH = _Form(re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):"))
_FORMS = (
    # ChatML and Phi 4; Llama 3 and 4 and Granite; Gemma; Zephyr, Phi 3, OpenAssistant and GLM; Command R;
    # DeepSeek.
    _Form(re.compile(r"<\|im_start\|>(\w+)(?:<\|im_sep\|>)?"), is_certain=True),
    _Form(
        re.compile(
            r"<\|(?:start_header_id|header_start|start_of_role)\|>(\w+)"
            r"<\|(?:end_header_id|header_end|end_of_role)\|>"
        ),
        is_certain=True,
    ),
    _Form(re.compile(r"<start_of_turn>(\w+)"), is_certain=True),
    _Form(re.compile(r"<\|(system|user|assistant|prompter|model)\|>"), is_certain=True),
    _Form(re.compile(r"<\|START_OF_TURN_TOKEN\|><\|(\w+?)_TOKEN\|>"), is_certain=True),
    _Form(re.compile(r"<｜(System|User|Assistant)｜>"), is_certain=True),
    # Llama 2 and Mistral; Alpaca and Guanaco; Vicuna; OpenChat.
    _Form(re.compile(r"(?:<s>)?\[(/?INST|SYSTEM_PROMPT)\]")),
    _Form(
        re.compile(r"#{2,3} ?(System|Human|User|Instruction|Input|Assistant|Response) ?:", re.IGNORECASE),
        r"Below is an instruction that describes a task[^\n]*\n",
    ),
    _Form(
        re.compile(r"(?:\A|(?<=\s))(USER|ASSISTANT|GPT):"),
        r"A chat between a curious [^\n]*?(?=\sUSER:)",
    ),
    _Form(re.compile(r"(?:\A|(?<=[\s>]))GPT4 Correct (User|Assistant):"), is_certain=True),
)
_LINES = _Form(re.compile(r"(?:\A|\n)(?:\*\*)?(System|Human|User|Assistant|AI|Bot):(?:\*\*)?", re.IGNORECASE))
# HelpSteer2: the first turn of the user has no mark, or a system message stands before it.
_NEMO = re.compile(r"\s*<extra_id_[01]>(System|User|Assistant)\n")
# How any transcript begins: most texts need only this look.
_BEGIN = re.compile(
    r"\s*(?:[<\[#]|Below is an|A chat|BEGINNING OF|GPT4 |(?:\*\*)?(?:System|Human|User|Assistant|AI|Bot):)",
    re.IGNORECASE,
)
# What stands before a conversation, and tokens at the end of a turn.
_FIRST = (
    *("<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>", "<BOS_TOKEN>", "<｜begin▁of▁sentence｜>"),
    *("[gMASK]", "<sop>", "BEGINNING OF CONVERSATION:"),
)
_LAST = (
    *("<|im_end|>", "<|eot_id|>", "<|eot|>", "<|end|>", "<end_of_turn>", "<|end_of_turn|>", "</s>"),
    *(
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|END_OF_TURN_TOKEN|>",
        "<｜end▁of▁sentence｜>",
        "[/SYSTEM_PROMPT]",
    ),
)
# The system message of Llama 2 stands in the first turn of the user.
_SYSTEM = re.compile(r"\s*<<SYS>>\n?(.*?)\n?<</SYS>>\s*", re.DOTALL)
# A token in the form of chat templates, and one that names a role.
_TOKEN = re.compile(r"\s*<([|｜])[^\s<>|｜]{1,40}\1>")
_ROLE_TOKEN = re.compile(r"<[|｜][^\s<>|｜]{1,40}[|｜]>\s*(?:user|human|assistant|model)\b", re.IGNORECASE)


def transcript_turns(text: str, *, by_line: bool = True) -> list[Turn] | None:
    r"""Returns the turns of a transcript, or None if the text is none.

    Transcripts are those of HH-RLHF ("\n\nHuman: ...\n\nAssistant: ..."), of chat templates (ChatML, Llama,
    Gemma, Zephyr and others), of HelpSteer2, and of headings ("### Instruction:", "### Human:"). Without the
    blank line of HH-RLHF at the beginning, forms that consist of words only need turns of both sides, the
    user's first: an answer may begin with "Human:".

    Args:
      text: the text.
      by_line: lines that begin with "User:" and "Assistant:" are a transcript, too. For a prompt it makes no
        difference: `flatten_messages` writes conversations so.
    """
    if "<extra_id_1>" in text:
        return _nemo_turns(text)
    if not _BEGIN.match(text):
        return None
    text = text.replace("\r\n", "\n")
    turns = _turns(text, _HH, text.startswith("\n\n"))
    if turns is not None:
        return [(role, content.removeprefix(" ")) for role, content in turns]
    text = text.lstrip()
    for token in _FIRST:
        text = text.removeprefix(token).lstrip()
    for form in (*_FORMS, _LINES) if by_line else _FORMS:
        if (turns := _turns(text, form, form.is_certain)) is not None:
            return _with_system([(role, _without_end(content)) for role, content in turns])
    return None


def is_of_unknown_template(text: str) -> bool:
    """Returns True for a text of a chat template that is none of those of `transcript_turns`."""
    is_template = bool(_TOKEN.match(text)) and bool(_ROLE_TOKEN.search(text))
    return is_template and transcript_turns(text) is None


def _with_system(turns: list[Turn]) -> list[Turn]:
    """Returns turns with the system message of Llama 2 as a turn of its own."""
    if turns[0][0] != "user" or not (match := _SYSTEM.match(turns[0][1])):
        return turns
    return [("system", match[1]), ("user", turns[0][1][match.end() :]), *turns[1:]]


def _turns(text: str, form: _Form, is_certain: bool) -> list[Turn] | None:
    start = re.match(form.preamble, text)
    preamble, text = (start[0].strip(), text[start.end() :].lstrip()) if start and start[0] else ("", text)
    if not form.mark.match(text):
        return None
    _, *parts = form.mark.split(text)
    turns: list[Turn] = [("system", preamble)] if preamble else []
    for name, content in zip(parts[::2], parts[1::2], strict=True):
        if name.lower() == "input" and turns:
            role, before = turns.pop()
            turns.append((role, f"{before.strip()}\n\n{content.strip()}"))
        else:
            turns.append((known_role(name), content))
    roles = [role for role, _ in turns if role != "system"]
    return turns if is_certain or (roles[:1] == ["user"] and len(set(roles)) > 1) else None


def _nemo_turns(text: str) -> list[Turn] | None:
    first, *parts = _NEMO.split(text)
    turns = [(known_role(name), content) for name, content in zip(parts[::2], parts[1::2], strict=True)]
    turns = [("user", first), *turns] if first.strip() else turns
    return turns if parts and any(role == "user" for role, _ in turns) else None


def end_token(content: str) -> str:
    """Returns the token with which a chat template ends a turn, if it is at the end of a text; else ""."""
    end = content.rstrip()
    return next((token for token in _LAST if end.endswith(token)), "")


def _without_end(content: str) -> str:
    token = end_token(content)
    return (content.rstrip().removesuffix(token) if token else content).strip("\n").removeprefix(" ")
