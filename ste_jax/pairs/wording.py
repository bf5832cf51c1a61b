"""Words, sentences and subjects of texts, as the kinds of pairs without a model need them.

All functions are approximate and only meant to choose among texts: a kind does not rely on them for the label
of a pair. Texts in scripts without spaces have few words, and are therefore left out by `usable`.
"""

import functools
import re
import sys

_FUNCTION_WORDS = """
a about above after again all also am an and another any are as ask at be because been before being below
best between both but by can could did different do does doing done down during each every few find first
for from further generate get give given good had has have having he hello help her here hers him his hi how
i if in into is it its itself just know let like list made make many me more most much must my need no nor
not now of off on once one only or other our out over own please provide same say see shall she should show
so some something such sure take tell than that the their them then there these they thing this those
through to too two under until up us use used using very want was way we well were what when where which
while who whom why will with without work would write you your yours create explain describe following
example question answer
"""
_STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
_WORD = re.compile(r"\w+")
_SPACED = re.compile(r"\S+")
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]+[\"'”’)\]*_]*(?=\s|$)|\n+")
_NO_END = re.compile(r"(?:^|\s)(?:\d+|[A-Za-z]|e\.g|i\.e|etc|vs|mr|mrs|ms|dr|st|prof|no|fig|u\.s)\.$", re.I)
# Longer than what _NO_END finds, but for long numbers.
_LONGEST_NO_END = 12
_COMPLETE = re.compile(r"[.!?][\"'”’)\]*_]*$")


def spaced_words(text: str) -> list[tuple[int, int]]:
    """Returns the start and end of each run of characters without white space."""
    return [match.span() for match in _SPACED.finditer(text)]


@functools.lru_cache(maxsize=1 << 15)
def subjects(text: str) -> frozenset[str]:
    """Returns the words that say what a text is about, in lower case and without a plural s.

    Function words and the words of requests ("write", "explain", "please") are not among them.
    """
    words = (word.casefold() for word in _WORD.findall(text))
    return frozenset(
        sys.intern(_singular(word))
        for word in words
        if word not in _STOP_WORDS and (len(word) > 2 or word.isdigit())
    )


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def is_function_word(word: str) -> bool:
    """Returns True if a word says nothing about the subject of a text."""
    return word.casefold() in _STOP_WORDS


def sentences(text: str) -> list[tuple[int, int]]:
    """Returns the start and end of each sentence; a line break ends one, the number of a list does not."""
    spans, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        if end[0][0] != "\n" and _NO_END.search(text[max(start, end.end() - _LONGEST_NO_END) : end.end()]):
            continue
        spans.append((start, end.end()))
        start = end.end()
    spans.append((start, len(text)))
    return [_stripped(text, span) for span in spans if text[slice(*span)].strip()]


def _stripped(text: str, span: tuple[int, int]) -> tuple[int, int]:
    piece = text[slice(*span)]
    return span[0] + len(piece) - len(piece.lstrip()), span[1] - len(piece) + len(piece.rstrip())


def is_complete(sentence: str) -> bool:
    """Returns True if a sentence ends with a full stop, question mark or exclamation mark."""
    return bool(_COMPLETE.search(sentence))


def beginning(text: str, share: float) -> str:
    """Returns the first words of a text, at least one; they do not end a sentence if that can be avoided.

    Args:
      text: a text with at least one word.
      share: share of the words, from 0 to 1.
    """
    words = spaced_words(text)
    count = max(1, int(share * len(words)))
    while count > 1 and is_complete(text[: words[count - 1][1]]):
        count -= 1
    return text[: words[count - 1][1]]
