"""Types of requirements on the words of a text: which ones it has, where, how often and in which order.

A word is sought as it is written, whatever its case. It is certain to be absent only if no word with the same
beginning occurs: after "Use the word "curves"", a text with "curve" is an unclear case, and not a failure.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from ste_jax.pairs import topics
from ste_jax.pairs.predicate import PredicateType, Values
from ste_jax.pairs.reading import complete_sentences, has_code, has_words, words

# Words of four letters or more that say nothing about the content of a text.
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        about above across after again against almost along already also although always among another
        anything around away back because been before began behind being below between both came cannot
        come could does doing done down during each either else enough even ever every everything from
        further gave give given goes going gone have having hence here hers herself himself however indeed
        instead into itself just keep know known less like made mainly make makes making many maybe might
        more most much must myself near nearly neither never next none nothing often once only onto other
        others otherwise ours ourselves over perhaps please quite rather really said same says seem seems
        several shall should since some someone something sometimes soon still such sure take takes than
        that their theirs them themselves then there therefore these they thing things this those though
        through thus together towards under until upon used uses using usually very want wants well went
        were what whatever when where whether which while whom whose will with within without would year
        your yours yourself
        """,
    )
)


def _stem(word: str) -> str:
    """Returns the beginning that a word shares with its inflections."""
    folded = word.casefold()
    return folded[: max(3, len(folded) - 3)]


def _content_words(text: str) -> list[str]:
    """Returns the different content words of a text as it writes them, in its order.

    The last word of a text without an end may have been cut, and is left out.
    """
    if has_code(text):
        return []
    found = words(text) if not text[-1].isalpha() else words(text)[:-1]
    plain = [word for word in found if word.isalpha() and 4 <= len(word) <= 14]
    first_spellings = {word.casefold(): word for word in reversed(plain)}
    folded = dict.fromkeys(word.casefold() for word in plain)
    return [first_spellings[word] for word in folded if word not in _STOP_WORDS]


# A word by itself: not in a compound, an address or an identifier.
_BEFORE, _AFTER = r"(?<![\w\-'’./@])", r"(?!\w|[-'’/@_]\w|\.\w)"
_LONE_WORD = re.compile(rf"{_BEFORE}[^\W\d_]+{_AFTER}")
_PHRASES = [re.compile(rf"(?={_BEFORE}([^\W\d_]+(?: [^\W\d_]+){{{more}}}){_AFTER})") for more in (1, 2)]
_FIRST_WORD = re.compile(r"[^\W\d_]+(?=[\s,:]|[.!?](?:\s|\Z)|\Z)")
_LAST_WORD = re.compile(r"(?<!\S)[^\W\d_]+(?=[.!?]?\Z)")
_AFTER_MARK = re.compile(r"(?:\A|[^\w\s,'’]\s*|\n[^\S\n]*|\d\s*)([^\W\d_]+)")


@functools.lru_cache(maxsize=512)
def _lone_words(text: str) -> Counter[str]:
    """Returns how often the words of a text stand in it by themselves, in lower case."""
    return Counter(word.casefold() for word in _LONE_WORD.findall(text))


def _contains(text: str, word: str) -> bool | None:
    if not has_words(text):
        return None
    if word.casefold() in _lone_words(text):
        return True
    return None if _stem(word) in text.casefold() else False


def _lacks(text: str, word: str) -> bool | None:
    contained = _contains(text, word)
    return None if contained is None else not contained


def _contains_both(text: str, first: str, second: str) -> bool | None:
    found = {_contains(text, first), _contains(text, second)}
    return False if False in found else None if None in found else True


def _contains_twice(text: str, word: str) -> bool | None:
    if not has_words(text):
        return None
    if _lone_words(text)[word.casefold()] >= 2:
        return True
    return False if text.casefold().count(_stem(word)) < 2 else None


def _in_order(text: str, first: str, second: str) -> bool | None:
    contained = _contains_both(text, first, second)
    if not contained:
        return contained
    folded, stems = text.casefold(), (_stem(first), _stem(second))
    word = next(match for match in _LONE_WORD.finditer(folded) if match[0] == first.casefold())
    if word.start() < folded.find(stems[1]):
        return True
    return False if folded.rfind(stems[1]) < folded.find(stems[0]) else None


def _contains_phrase(text: str, phrase: str) -> bool | None:
    if not has_words(text):
        return None
    if phrase.casefold() in map(str.casefold, _phrases_of(text)):
        return True
    # With all of its words, a text may hold the phrase with a hyphen, a line break or other endings.
    present = [_stem(part) in text.casefold() for part in phrase.split(" ")]
    return None if all(present) else False


def _first_word(text: str, word: str) -> bool | None:
    if not words(text):
        return None
    first = _FIRST_WORD.match(text)
    if first and first[0].casefold() == word.casefold():
        return True
    # Behind a quotation mark, a heading or a list number, the first word may be meant.
    return None if _same_beginning(words(text)[0], word) else False


def _last_word(text: str, word: str) -> bool | None:
    if not words(text):
        return None
    last = _LAST_WORD.search(text)
    if last and last[0].casefold() == word.casefold():
        return True
    return None if any(_same_beginning(late, word) for late in words(text)[-2:]) else False


def _same_beginning(one: str, other: str) -> bool:
    short, long = sorted((one.casefold(), other.casefold()), key=len)
    return long.startswith(short) or _stem(short) == _stem(long)


def _first_letter(text: str, letter: str) -> bool | None:
    found = words(text)
    if not found:
        return None
    if text[0].casefold() == letter.casefold():
        return True
    return None if found[0][0].casefold() == letter.casefold() or not text[0].isalpha() else False


def _sentence_starts_with(text: str, word: str) -> bool | None:
    if not has_words(text) or has_code(text):
        return None
    folded = word.casefold()
    if any(words(sentence)[0].casefold() == folded for sentence in _plain_sentences(text)):
        return True
    # Sentences may begin after any mark or break, or without one in capitals.
    possible = {found.casefold() for found in _AFTER_MARK.findall(text)}
    capitals = {found.casefold() for found in words(text) if found[0].isupper()}
    return None if folded in possible | capitals else False


def _plain_sentences(text: str) -> list[str]:
    """Returns the complete sentences that begin with a word rather than a mark or a number."""
    return [sentence for sentence in complete_sentences(text) if re.match(r"[^\W\d_]+[ ,]", sentence)]


def _single_words(meets: str, fails: str) -> Iterator[Values]:
    absent = fails.casefold()
    return ((word,) for word in _content_words(meets) if _stem(word) not in absent)


def _absent_words(meets: str, fails: str) -> Iterator[Values]:
    return _single_words(fails, meets)


def _repeated_words(meets: str, fails: str) -> Iterator[Values]:
    del fails
    return ((word,) for word in _content_words(meets) if _lone_words(meets)[word.casefold()] >= 2)


def _word_pairs(meets: str, fails: str) -> Iterable[Values]:
    """Returns pairs of words, of which the other text has at most one, in the order of the text."""
    found = _content_words(meets)
    absent = fails.casefold()
    pairs = [(one, other) for at, one in enumerate(found) for other in found[at + 2 : at + 6]]
    # Pairs with one word in the other text ask for more reading.
    mixed = [pair for pair in pairs if sum(_stem(word) in absent for word in pair) == 1]
    return mixed or pairs


def _ordered_pairs(meets: str, fails: str) -> Iterable[Values]:
    """Returns pairs of words in the order of the text; if any, those in another order in the other text."""
    other = {word.casefold() for word in _content_words(fails)}
    shared = [word for word in _content_words(meets) if word.casefold() in other]
    pairs = [(one, two) for at, one in enumerate(shared) for two in shared[at + 1 : at + 6]]
    return [pair for pair in pairs if _in_order(fails, *pair) is False] or _word_pairs(meets, fails)


def _phrases(meets: str, fails: str) -> Iterator[Values]:
    """Yields phrases with content words at both ends."""
    del fails
    content = {word.casefold() for word in _content_words(meets)}
    for match in _phrases_of(meets):
        parts = match.casefold().split(" ")
        if content.issuperset({parts[0], parts[-1]}):
            yield (match,)


@functools.lru_cache(maxsize=512)
def _phrases_of(text: str) -> tuple[str, ...]:
    """Returns the phrases of two and of three words of a text, as it writes them."""
    return tuple(dict.fromkeys(match[1] for pattern in _PHRASES for match in pattern.finditer(text)))


def _opening(meets: str, fails: str) -> Iterator[Values]:
    del fails
    if match := re.match(r"([^\W\d_]{2,14})(?=[\s,])", meets):
        yield (match[1].capitalize() if not match[1].isupper() else match[1],)


def _opening_letter(meets: str, fails: str) -> Iterator[Values]:
    del fails
    # The letters of verdicts are left out.
    if re.match(r"[C-Zc-z]\w", meets):
        yield (meets[0].upper(),)


def _closing(meets: str, fails: str) -> Iterator[Values]:
    del fails
    last = _LAST_WORD.search(meets)
    if last and 3 <= len(last[0]) <= 14 and not has_code(meets):
        yield (last[0],)


def _sentence_openings(meets: str, fails: str) -> Iterator[Values]:
    del fails
    for sentence in _plain_sentences(meets)[1:]:
        if 2 <= len(words(sentence)[0]) <= 14:
            yield (words(sentence)[0],)


CONTAINS_WORD = PredicateType(
    "contains_word",
    _contains,
    (
        'Use the word "{0}" in your answer.',
        'Your answer must contain the word "{0}".',
        'Make sure that the word "{0}" appears.',
        'In an answer that mentions the word "{0}", do this:',
    ),
    _single_words,
    topics.words,
)
LACKS_WORD = PredicateType(
    "lacks_word",
    _lacks,
    (
        'Do not use the word "{0}".',
        'Avoid the word "{0}" in your answer.',
        'The word "{0}" must not appear in your answer.',
        'Without using the word "{0}", do this:',
    ),
    _absent_words,
    topics.mentioned,
)
CONTAINS_PHRASE = PredicateType(
    "contains_phrase",
    _contains_phrase,
    (
        'Include the exact phrase "{0}".',
        'Your answer must contain the phrase "{0}".',
        'Work the phrase "{0}" into your answer.',
        'Using the exact phrase "{0}", answer this:',
    ),
    _phrases,
    topics.words,
)
FIRST_WORD = PredicateType(
    "first_word",
    _first_word,
    (
        'Begin your answer with the word "{0}".',
        'The first word of your answer must be "{0}".',
        'Start with the word "{0}".',
        'In an answer whose first word is "{0}", do this:',
    ),
    _opening,
    topics.places,
)
LAST_WORD = PredicateType(
    "last_word",
    _last_word,
    (
        'End your answer with the word "{0}".',
        'The last word of your answer must be "{0}".',
        'Finish with the word "{0}".',
        'In an answer whose last word is "{0}", do this:',
    ),
    _closing,
    topics.places,
)
SENTENCE_STARTS_WITH = PredicateType(
    "sentence_starts_with",
    _sentence_starts_with,
    (
        'Start at least one sentence with the word "{0}".',
        'At least one sentence must begin with "{0}".',
        'Include a sentence whose first word is "{0}".',
        'Beginning one of your sentences with "{0}", answer this:',
    ),
    _sentence_openings,
    topics.places,
)
CONTAINS_BOTH = PredicateType(
    "contains_both_words",
    _contains_both,
    (
        'Use both the word "{0}" and the word "{1}".',
        'Your answer must mention "{0}" as well as "{1}".',
        'Both "{0}" and "{1}" must appear in your answer.',
        'Using the two words "{0}" and "{1}", answer this:',
    ),
    _word_pairs,
    topics.words,
)
CONTAINS_TWICE = PredicateType(
    "contains_word_twice",
    _contains_twice,
    (
        'Use the word "{0}" at least twice.',
        'The word "{0}" must appear two times or more.',
        'Repeat the word "{0}" at least once.',
        'Mentioning the word "{0}" at least two times, answer this:',
    ),
    _repeated_words,
    topics.words,
)
WORD_ORDER = PredicateType(
    "word_order",
    _in_order,
    (
        'Mention "{0}" before you mention "{1}".',
        'Use the words "{0}" and "{1}", in this order.',
        'The word "{0}" must appear, and the word "{1}" after it.',
        'Using first the word "{0}" and later the word "{1}", answer this:',
    ),
    _ordered_pairs,
    topics.words,
)
FIRST_LETTER = PredicateType(
    "first_letter",
    _first_letter,
    (
        'The first letter of your answer must be "{0}".',
        'Begin with a word that starts with the letter "{0}".',
        'Let your answer start with the letter "{0}".',
        'In an answer that starts with the letter "{0}", do this:',
    ),
    _opening_letter,
    topics.places,
)
