"""Defuses text that imitates the structure of a judge prompt.

Instructions, responses and references are untrusted. What in them looks like a delimiter of the prompt or
like a verdict loses its marks, never its words, so that the judge can still read it: `</response_a>` becomes
`(response_a)`, a line `### Response A` becomes `(Response A)`, and `[[A]]` becomes `[[ A ]]`.

A judge has to be used with the rules that it was trained with, so their version is part of the prompt (see
`JudgePrompt.sanitizer`). Version 1 also matched delimiters inside longer words and lines:
`### Response Analysis` became `(Response A)nalysis`. It is kept only for judges that were trained with it:
a prompt in a model card that names no version is of version 1.
"""

import re
from collections.abc import Iterable

SANITIZER = 2

_VERDICT = re.compile(r"\[\[([AB])\]\]")
_TAG = re.compile(r"<\s*/?\s*([\w.:-]+)(?:\s[^<>]*)?/?>")
_PIECE = re.compile(r"\w+|([^\w\s])(?:\s*\1)*")
_BREAKS = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_BLANK = rf"[^\S{_BREAKS}]*"
_BETWEEN = rf"(?:[*_]|[^\S{_BREAKS}])*"
# A heading may stand in a block quote or in bold type.
_LINE_START = rf"(?:(?<=[{_BREAKS}])|\A)(?P<before>[ \t>*_]*)"
# More words make another heading; punctuation may follow, as in "### Response A: a better one".
_HEADING_END = rf"(?={_BLANK}(?:[{_BREAKS}]|\Z|[:#*=|(\[<>.,;!?]|[-\u2013\u2014](?!\w)))"
_MAX_ATTRIBUTES = 200


def sanitize(text: str, delimiters: Iterable[str], version: int = SANITIZER) -> str:
    """Returns `text` without the marks of verdicts and of imitated delimiters.

    Three kinds of delimiters are imitated in different ways, always regardless of case and spacing:

    - tags, such as `<response_a>`: opening and closing tags of that name anywhere, also with attributes;
    - other bracketed lines, such as `[Start of Response A]`: anywhere;
    - headings, such as `### Response A` or `== First ==`: lines that begin with the whole delimiter. After a
      delimiter that ends in a word, more words make another heading, which stays as it is. Additional heading
      marks, block quotes and bold type do not matter.

    Args:
      text: untrusted text.
      delimiters: lines of the template that separate its parts.
      version: rules to apply, `SANITIZER` or 1.
    """
    defuse = _defuse_1 if version == 1 else _defuse
    for delimiter in delimiters:
        text = defuse(text, delimiter)
    return _VERDICT.sub(r"[[ \1 ]]", text)


def _defuse(text: str, delimiter: str) -> str:
    """Returns `text` without the marks of imitations of one delimiter."""
    return _pattern(delimiter).sub(_defused, text)


def _pattern(delimiter: str) -> re.Pattern[str]:
    """Returns the pattern of the imitations of a delimiter.

    Its groups are `tag` for the inside of a tag, `before` and `marked` for a heading and what precedes it.
    """
    if tag := _TAG.fullmatch(delimiter):
        name = re.escape(tag[1])
        return re.compile(rf"<\s*/?\s*(?P<tag>{name}(?:\s[^<>]{{0,{_MAX_ATTRIBUTES}}})?)/?>", re.I)
    pieces = [match[0] for match in _PIECE.finditer(delimiter)]
    if pieces[0][0] in "<[({" and pieces[-1][-1] in ">])}":
        return re.compile(r"\s*".join(map(_piece, pieces)), re.I)
    words = _BETWEEN.join(map(_piece, pieces))
    end = _HEADING_END if re.match(r"\w", pieces[-1]) else ""
    return re.compile(f"{_LINE_START}(?P<marked>{words}){end}", re.I)


def _piece(piece: str) -> str:
    """Returns the pattern of a word, or of a run of at least as many marks."""
    if re.match(r"\w", piece):
        return re.escape(piece)
    marks = re.sub(r"\s", "", piece)
    return rf"{re.escape(marks[0])}(?:{_BLANK}{re.escape(marks[0])}){{{len(marks) - 1},}}"


def _defused(match: re.Match[str]) -> str:
    """Returns the replacement of an imitation."""
    groups = match.groupdict()
    if "tag" in groups:
        return "(" + match["tag"].strip("/ \n\t") + ")"
    core = re.sub(r"^\W+|\W+$", "", groups.get("marked", match[0]))
    return f"{groups.get('before', '')}({core})"


def _defuse_1(text: str, delimiter: str) -> str:
    """Does what `_defuse` did in version 1."""
    pattern = r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", delimiter)))
    return re.sub(pattern, lambda match: "(" + re.sub(r"^\W+|\W+$", "", match[0]) + ")", text, flags=re.I)
