"""Defuses text that imitates the structure of a judge prompt.

Instructions, responses and references are untrusted. What in them looks like a delimiter of the prompt or
like a verdict loses its marks, never its words, so that the judge can still read it: `</response_a>` becomes
`(response_a)`, a line `### Response A` becomes `(Response A)`, and `[[A]]` becomes `[[ A ]]`. Texts are
compared in the form of text/folding.py, so that invisible, full-width and similar characters hide no
imitation; what is shown is the original.

A judge has to be used with the rules that it was trained with, so their version is part of the prompt (see
`JudgePrompt.sanitizer`). Version 1 also matched delimiters inside longer words and lines:
`### Response Analysis` became `(Response A)nalysis`. It is kept only for judges that were trained with it:
a prompt in a model card that names no version is of version 1.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from ste_jax.text.folding import Folded, fold

SANITIZER = 2

# All runs are possessive, and no two of them can share characters: no text takes time that grows with the
# square of its length.
_TAG = re.compile(r"<\s*+/?+\s*+([\w.:-]++)(?:\s[^<>]*)?/?>")
_PIECE = re.compile(r"\w+|([^\w\s])(?:\s*\1)*")
_BREAKS = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
_BLANK = rf"[^\S{_BREAKS}]*+"
_TAG_END = "/ \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029"
# White space that is not shown as a blank or a line, so that it may hide inside a word.
_UNSEEN = r"[\v\f\x1c-\x1f\x85]*+"
# More words make another heading; punctuation may follow, as in "### Response A: a better one".
_HEADING_END = rf"(?={_BLANK}(?:[{_BREAKS}]|\Z|[:#*=|(\[{{<>.,;!?]|[-\u2013\u2014](?!\w)))"
_LETTERS = "[AB]"
_VERDICT_1 = re.compile(r"\[\[([AB])\]\]")


def sanitize(text: str, delimiters: Iterable[str], version: int = SANITIZER, verdict: str = _LETTERS) -> str:
    """Returns `text` without the marks of verdicts and of imitated delimiters; see `sanitize_and_count`."""
    return sanitize_and_count(text, delimiters, version, verdict)[0]


def sanitize_and_count(
    text: str, delimiters: Iterable[str], version: int = SANITIZER, verdict: str = _LETTERS
) -> tuple[str, int]:
    """Returns `text` without the marks of verdicts and of imitated delimiters, and the number of both.

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
      verdict: pattern of what stands in the double brackets of a verdict.
    """
    if version == 1:
        return _sanitize_1(text, delimiters)
    total = 0
    for delimiter in delimiters:
        text, count = _replace(_pattern(fold(delimiter)), _defused, text)
        total += count
    pattern = re.compile(rf"\[\s*+\[\s*+(?P<letter>{verdict})\s*+\]\s*+\]", re.I)
    text, count = _replace(pattern, _defused_verdict, text)
    return text, total + count


def _replace(
    pattern: re.Pattern[str], replacement: Callable[[re.Match[str], Folded], str], text: str
) -> tuple[str, int]:
    """Replaces what matches in the folded text, and returns the new text and the number of changes."""
    folded = Folded(text)
    pieces, end, count = [], 0, 0
    for match in pattern.finditer(folded.text):
        first, last = folded.span(*match.span())
        first = max(first, end)  # both ends of two matches may lie in one character, such as a ligature
        new = replacement(match, folded)
        count += new != text[first:last]
        pieces += [text[end:first], new]
        end = last
    return "".join([*pieces, text[end:]]), count


def _pattern(delimiter: str) -> re.Pattern[str]:
    """Returns the pattern of the imitations of a delimiter.

    Its groups are `tag` or `cut` for the inside of a tag, `before` and `marked` for a heading and what
    precedes it.
    """
    if tag := _TAG.fullmatch(delimiter):
        return _tag_pattern(tag[1])
    pieces = [match[0] for match in _PIECE.finditer(delimiter)]
    if pieces[0][0] in "<[({" and pieces[-1][-1] in ">])}":
        # Of a longer run of marks only the last count, or every mark of the run would be a start to try.
        return re.compile(r"\s*+".join((_marks(pieces[0]), *map(_piece, pieces[1:]))), re.I)
    return _heading_pattern(pieces)


def _tag_pattern(name: str) -> re.Pattern[str]:
    """Returns the pattern of a tag, also with other separators between the words of its name.

    A tag may be cut off by another tag or, unless it could be a comparison (`x < instruction`), by the end of
    its line.
    """
    words = [_word(word) for word in re.split(r"[_.:-]+", name) if word]
    words_pattern = r"[\s_.:-]*+".join(words) or re.escape(name)
    start = r"<(?P<tight>\s*+/|(?=\w))?+\s*+"
    whole = rf"(?P<tag>{words_pattern}(?:[\s/][^<>]*+)?+)(?:>|(?=<))"
    return re.compile(
        rf"{start}(?:{whole}|(?P<cut>{words_pattern}){_BLANK}(?(tight)(?=[{_BREAKS}]|\Z)|(?!)))", re.I
    )


def _heading_pattern(pieces: Sequence[str]) -> re.Pattern[str]:
    """Returns the pattern of lines that begin with these pieces, maybe in a block quote or in bold type."""
    before = "".join(mark for mark in " \t>*_" if mark != pieces[0][0])
    words = "".join(_between(piece) * bool(i) + _piece(piece) for i, piece in enumerate(pieces))
    end = _HEADING_END if re.match(r"\w", pieces[-1]) else ""
    return re.compile(rf"(?:(?<=[{_BREAKS}])|\A)(?P<before>[{before}]*+)(?P<marked>{words}){end}", re.I)


def _between(following: str) -> str:
    """Returns the pattern of what may stand between two pieces: blanks and bold type."""
    marks = "".join(mark for mark in "*_" if mark != following[0])
    return rf"(?:[{marks}]|[^\S{_BREAKS}])*+"


def _piece(piece: str) -> str:
    """Returns the pattern of a word, or of a run of at least as many marks."""
    if re.match(r"\w", piece):
        return _word(piece)
    mark = re.escape(piece[0])
    return rf"{_marks(piece)}(?:{_BLANK}{mark})*+"


def _marks(piece: str) -> str:
    """Returns the pattern of a run of as many marks."""
    return _BLANK.join(map(re.escape, "".join(piece.split())))


def _word(word: str) -> str:
    return _UNSEEN.join(map(re.escape, word))


def _defused(match: re.Match[str], folded: Folded) -> str:
    """Returns the replacement of an imitation: its words in parentheses, as the original writes them."""
    groups = match.groupdict()
    if "tag" in groups:
        name = "tag" if groups["tag"] is not None else "cut"
        start, words = match.start(name), match[name].rstrip(_TAG_END)
        return f"({folded.part(start, start + len(words))})"
    name = "marked" if "marked" in groups else 0
    words = _without_outer_marks(match[name])
    start = match.start(name) + match[name].index(words)
    before = folded.part(*match.span("before")) if "before" in groups else ""
    return f"{before}({folded.part(start, start + len(words))})"


def _without_outer_marks(text: str) -> str:
    """Returns a text from its first to its last word."""
    words = list(re.finditer(r"\w+", text))
    return text[words[0].start() : words[-1].end()] if words else ""


def _defused_verdict(match: re.Match[str], folded: Folded) -> str:
    return f"[[ {folded.part(*match.span('letter'))} ]]"


def _sanitize_1(text: str, delimiters: Iterable[str]) -> tuple[str, int]:
    """Does what `sanitize_and_count` did in version 1."""
    total = 0
    for delimiter in delimiters:
        pattern = r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", delimiter)))
        text, count = re.subn(pattern, lambda match: f"({_without_outer_marks(match[0])})", text, flags=re.I)
        total += count
    text, count = _VERDICT_1.subn(r"[[ \1 ]]", text)
    return text, total + count
