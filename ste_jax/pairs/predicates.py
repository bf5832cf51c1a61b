"""All types of requirements: those that a judge is trained with, and those that only test it.

A model does better on the types that it was trained with than on others, so a test needs types of its own.
No held-out type is the opposite, or the other direction, of a trained one.
"""

from ste_jax.pairs import form_predicates as form
from ste_jax.pairs import mark_predicates as mark
from ste_jax.pairs import style_predicates as style
from ste_jax.pairs import word_predicates as word
from ste_jax.pairs.predicate import PredicateType

TRAINED: tuple[PredicateType, ...] = (
    word.CONTAINS_WORD,
    word.LACKS_WORD,
    word.CONTAINS_PHRASE,
    word.FIRST_WORD,
    word.LAST_WORD,
    word.SENTENCE_STARTS_WITH,
    mark.HAS_COMMA,
    mark.NO_COMMA,
    mark.HAS_COLON,
    mark.NO_COLON,
    mark.HAS_QUESTION_MARK,
    mark.NO_QUESTION_MARK,
    mark.HAS_EXCLAMATION_MARK,
    mark.NO_EXCLAMATION_MARK,
    mark.ENDS_WITH_QUESTION_MARK,
    mark.ENDS_WITH_EXCLAMATION_MARK,
    mark.ENDS_WITH_FULL_STOP,
    mark.HAS_DIGITS,
    mark.NO_DIGITS,
    mark.HAS_QUOTATION,
    mark.NO_QUOTATION,
    form.AT_LEAST_WORDS,
    form.AT_MOST_WORDS,
    form.AT_LEAST_SENTENCES,
    form.AT_MOST_SENTENCES,
    form.ONE_SENTENCE,
    form.ONE_PARAGRAPH,
    form.SEVERAL_PARAGRAPHS,
    form.BULLETED_LIST,
    form.NUMBERED_LIST,
    form.NO_LIST,
    form.BOLD,
    form.CODE_BLOCK,
    form.NO_CODE_BLOCK,
    style.LOWER_CASE,
    style.SAYS_YOU,
    style.NO_YOU,
    style.SAYS_I,
    style.NO_I,
)
HELD_OUT: tuple[PredicateType, ...] = (
    word.CONTAINS_BOTH,
    word.CONTAINS_TWICE,
    word.WORD_ORDER,
    word.FIRST_LETTER,
    mark.HAS_PARENTHESES,
    mark.NO_PARENTHESES,
    form.HEADING,
    form.LONG_WORD,
    form.SHORT_WORDS,
    style.CAPITAL_WORD,
    style.LANGUAGE,
    style.HAS_CONTRACTION,
    style.NO_CONTRACTION,
    style.MENTIONS_YEAR,
    style.HAS_EMOJI,
)
