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
    # ChatML, Llama 3, Gemma; Zephyr, Phi and OpenAssistant.
    _Form(re.compile(r"<\|im_start\|>(\w+)"), is_certain=True),
    _Form(re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>"), is_certain=True),
    _Form(re.compile(r"<start_of_turn>(\w+)"), is_certain=True),
    _Form(re.compile(r"<\|(system|user|assistant|prompter)\|>"), is_certain=True),
    # Llama 2 and Mistral, Alpaca and Guanaco, Vicuna.
    _Form(re.compile(r"(?:<s>)?\[(/?INST)\]")),
    _Form(
        re.compile(r"#{2,3} ?(System|Human|User|Instruction|Input|Assistant|Response) ?:", re.IGNORECASE),
        r"Below is an instruction that describes a task[^\n]*\n",
    ),
    _Form(re.compile(r"(?:\A|(?<=\s))(USER|ASSISTANT):"), r"A chat between a curious [^\n]*?(?=\sUSER:)"),
)
_LINES = _Form(re.compile(r"(?:\A|\n)(System|Human|User|Assistant|AI|Bot):", re.IGNORECASE))
# HelpSteer2: the first turn of the user has no mark, or a system message stands before it.
_NEMO = re.compile(r"\s*<extra_id_[01]>(System|User|Assistant)\n")
# How any transcript begins: most texts need only this look.
_BEGIN = re.compile(
    r"\s*(?:[<\[#]|Below is an|A chat|(?:System|Human|User|Assistant|AI|Bot):)", re.IGNORECASE
)
# Tokens before a conversation and at the end of a turn.
_FIRST = ("<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>")
_LAST = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "</s>", "<|endoftext|>")


def transcript_turns(text: str, *, by_line: bool = True) -> list[Turn] | None:
    r"""Returns the turns of a transcript, or None if the text is none.

    Transcripts are those of HH-RLHF ("\n\nHuman: ...\n\nAssistant: ..."), of chat templates (ChatML, Llama,
    Gemma, Zephyr), of HelpSteer2, and of headings ("### Instruction:", "### Human:"). Without the blank line
    of HH-RLHF at the beginning, forms that consist of words only need turns of both sides, the user's first:
    an answer may begin with "Human:".

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
            return [(role, _without_end(content)) for role, content in turns]
    return None


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


def _without_end(content: str) -> str:
    end = content.rstrip()
    token = next((token for token in _LAST if end.endswith(token)), "")
    return (end.removesuffix(token) if token else content).strip("\n").removeprefix(" ")
