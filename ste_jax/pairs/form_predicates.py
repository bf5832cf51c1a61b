"""Types of requirements on the form of a text: length, paragraphs, lists, headings, bold type and code."""

import functools
import re
from collections.abc import Callable, Iterator

from ste_jax.pairs import topics
from ste_jax.pairs.checks import TextCheck, at_least, at_most, has
from ste_jax.pairs.predicate import PredicateType, Values
from ste_jax.pairs.reading import (
    Span,
    has_code,
    list_items,
    longest_word,
    paragraph_count,
    sentence_count,
    word_count,
)

Count = Callable[[str], Span | None]
_ROUND = (*range(5, 50, 5), *range(50, 100, 10), *range(100, 300, 25), *range(300, 1001, 50))


def _word_slack(bound: int) -> int:
    # A fifth: nobody counts contractions, compounds and numbers so differently.
    return -(-bound // 5)


def _at_least_words(text: str, bound: int) -> bool | None:
    return at_least(word_count(text), bound, _word_slack(bound))


def _at_most_words(text: str, bound: int) -> bool | None:
    return at_most(word_count(text), bound, _word_slack(bound))


def _at_least_sentences(text: str, bound: int) -> bool | None:
    return at_least(sentence_count(text), bound)


def _at_most_sentences(text: str, bound: int) -> bool | None:
    return at_most(sentence_count(text), bound)


def _one_sentence(text: str) -> bool | None:
    count = sentence_count(text)
    if count is None:
        return None
    if count.low >= 2:
        return False
    return True if count == Span(1, 1) and text[0].isupper() else None


def _one_paragraph(text: str) -> bool | None:
    return at_most(paragraph_count(text), 1)


def _several_paragraphs(text: str) -> bool | None:
    return at_least(paragraph_count(text), 2)


def _listed(kind: str) -> TextCheck:
    """Returns the check for a list of a kind; it has two items or more."""
    return lambda text: None if (items := list_items(text, kind)) is None else _is_list(items)


def _is_list(items: Span) -> bool | None:
    return True if items.low >= 2 else False if items.high == 0 else None


def _no_list(text: str) -> bool | None:
    items = list_items(text, "any")
    return None if items is None or (found := _is_list(items)) is None else not found


def _code_block(text: str) -> bool | None:
    if re.search(r"^[ ]*```[^\n`]*\n\s*\S", text, re.M):
        return True
    return None if has_code(text) or "`" in text or "~~~" in text else False


def _no_code_block(text: str) -> bool | None:
    found = _code_block(text)
    return None if found is None else not found


def _long_word(text: str, letters: int) -> bool | None:
    return at_least(longest_word(text), letters, slack=1)


def _short_words(text: str, letters: int) -> bool | None:
    return at_most(longest_word(text), letters, slack=1)


def _between(count: Count, first: int, numbers: tuple[int, ...], meets: str, fails: str) -> Iterator[Values]:
    """Yields the numbers, from `first` on, between the counts of two texts."""
    spans = count(meets), count(fails)
    if spans[0] and spans[1]:
        low, high = min(s.low for s in spans if s), max(s.high for s in spans if s)
        yield from ((n,) for n in numbers if max(first, low) <= n <= high)


_word_bounds = functools.partial(_between, word_count, 5, _ROUND)
_sentence_bounds = functools.partial(_between, sentence_count, 2, tuple(range(2, 31)))
_letter_bounds = functools.partial(_between, longest_word, 6, tuple(range(6, 17)))

AT_LEAST_WORDS = PredicateType(
    "at_least_words",
    _at_least_words,
    (
        "Use at least {0} words.",
        "Your answer must have {0} words or more.",
        "Write no fewer than {0} words.",
        "In at least {0} words, answer this:",
    ),
    _word_bounds,
    topics.length,
)
AT_MOST_WORDS = PredicateType(
    "at_most_words",
    _at_most_words,
    (
        "Use at most {0} words.",
        "Your answer must have {0} words or fewer.",
        "Do not write more than {0} words.",
        "In at most {0} words, answer this:",
    ),
    _word_bounds,
    topics.length,
)
AT_LEAST_SENTENCES = PredicateType(
    "at_least_sentences",
    _at_least_sentences,
    (
        "Write at least {0} sentences.",
        "Your answer must have {0} or more complete sentences.",
        "Use no fewer than {0} sentences.",
        "In at least {0} sentences, answer this:",
    ),
    _sentence_bounds,
    topics.length,
)
AT_MOST_SENTENCES = PredicateType(
    "at_most_sentences",
    _at_most_sentences,
    (
        "Write at most {0} sentences.",
        "Your answer must have {0} sentences or fewer.",
        "Use no more than {0} sentences.",
        "In at most {0} sentences, answer this:",
    ),
    _sentence_bounds,
    topics.length,
)
ONE_SENTENCE = PredicateType(
    "one_sentence",
    _one_sentence,
    (
        "Answer in a single sentence.",
        "Your answer must be exactly one sentence.",
        "Write one complete sentence, and no more.",
        "In one sentence, answer this:",
    ),
    clashes=topics.length,
)
ONE_PARAGRAPH = PredicateType(
    "one_paragraph",
    _one_paragraph,
    (
        "Write a single paragraph.",
        "Your answer must be exactly one paragraph.",
        "Do not split your answer into paragraphs.",
        "In one paragraph, answer this:",
    ),
    clashes=topics.length,
)
SEVERAL_PARAGRAPHS = PredicateType(
    "several_paragraphs",
    _several_paragraphs,
    (
        "Write at least two paragraphs.",
        "Your answer must have two or more paragraphs.",
        "Split your answer into paragraphs.",
        "In two or more paragraphs, answer this:",
    ),
    clashes=topics.length,
)
BULLETED_LIST = PredicateType(
    "bulleted_list",
    _listed("bulleted"),
    (
        "Use bullet points.",
        "Your answer must contain a bulleted list.",
        "Include a list with bullets.",
        "Using bullet points, answer this:",
    ),
    clashes=topics.form,
)
NUMBERED_LIST = PredicateType(
    "numbered_list",
    _listed("numbered"),
    (
        "Use a numbered list.",
        "Your answer must contain a numbered list.",
        "Number the points of your answer as a list.",
        "With a numbered list, answer this:",
    ),
    clashes=topics.form,
)
NO_LIST = PredicateType(
    "no_list",
    _no_list,
    (
        "Do not use bullet points or numbered lists.",
        "Your answer must not contain a list.",
        "Write prose, without any lists.",
        "Without bullets or numbered items, answer this:",
    ),
    clashes=topics.form,
)
BOLD = PredicateType(
    "bold",
    has(r"\*\*[^\W_][^*\n]*\*\*", r"\*\*|__|</?(?:b|strong)\b"),
    (
        "Put at least one word in bold, like **this**.",
        "Your answer must contain bold text (**text**).",
        "Use bold type (**) at least once.",
        "With something in **bold**, answer this:",
    ),
    clashes=topics.code,
)
CODE_BLOCK = PredicateType(
    "code_block",
    _code_block,
    (
        "Include a code block (```).",
        "Your answer must contain a fenced code block.",
        "Use a markdown code block.",
        "With a code block (```), answer this:",
    ),
    clashes=topics.form,
)
NO_CODE_BLOCK = PredicateType(
    "no_code_block",
    _no_code_block,
    (
        "Do not use a fenced code block (```).",
        "Your answer must not contain a fenced code block.",
        "Use no markdown code block.",
        "Without a code block (```), answer this:",
    ),
    clashes=topics.form,
)
HEADING = PredicateType(
    "heading",
    has(r"(?m)^#{1,6} +\w", r"#"),
    (
        "Include a markdown heading (a line that starts with #).",
        "Your answer must have a heading that starts with #.",
        "Give at least one section a heading with #.",
        "With a markdown heading (#), answer this:",
    ),
    clashes=topics.code,
)
LONG_WORD = PredicateType(
    "long_word",
    _long_word,
    (
        "Use at least one word with {0} or more letters.",
        "Your answer must contain a word of at least {0} letters.",
        "Include a long word ({0} letters or more).",
        "Using a word of {0} or more letters, answer this:",
    ),
    _letter_bounds,
    topics.style,
)
SHORT_WORDS = PredicateType(
    "short_words",
    _short_words,
    (
        "Use only words with at most {0} letters.",
        "No word may have more than {0} letters.",
        "Keep every word to {0} letters or fewer.",
        "Without any word of more than {0} letters, answer this:",
    ),
    _letter_bounds,
    topics.style,
)
