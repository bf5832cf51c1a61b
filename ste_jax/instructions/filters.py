"""Filters out instructions that are unsuitable for training, and counts them by reason."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from ste_jax.config_field import INHERITED, config_field
from ste_jax.errors import SteError
from ste_jax.extras import needs
from ste_jax.instructions.near_duplicates import NearDuplicates, normal
from ste_jax.records import Instruction

if TYPE_CHECKING:
    from lingua import IsoCode639_1, LanguageDetector

# ISO 639-1 codes of the languages that lingua can tell apart.
LANGUAGES = frozenset(
    (
        *("af", "ar", "az", "be", "bg", "bn", "bs", "ca", "cs", "cy", "da", "de", "el", "en", "eo"),
        *("es", "et", "eu", "fa", "fi", "fr", "ga", "gu", "he", "hi", "hr", "hu", "hy", "id", "is"),
        *("it", "ja", "ka", "kk", "ko", "la", "lg", "lt", "lv", "mi", "mk", "mn", "mr", "ms", "nb"),
        *("nl", "nn", "pa", "pl", "pt", "ro", "ru", "sk", "sl", "sn", "so", "sq", "sr", "st", "sv"),
        *("sw", "ta", "te", "th", "tl", "tn", "tr", "ts", "uk", "ur", "vi", "xh", "yo", "zh", "zu"),
    )
)

# The languages of almost all prompts that people type. Fewer languages make the detection of short English
# text more reliable and need less memory (450 MiB while the filter runs). Text in any other language is taken
# for the most similar one of these.
RIVAL_LANGUAGES = (
    *("en", "es", "fr", "de", "it", "pt", "nl", "sv", "da", "pl", "cs", "ro", "hu", "fi", "tr", "vi", "id"),
    *("ru", "uk", "ar", "fa", "hi", "zh", "ja", "ko"),
)
_MIN_LETTERS = 4
_MIN_WORDS = 3
_FOREIGN_AT_LEAST = 0.5
_WANTED_AT_MOST = 0.05

_CODE_OR_LINK = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.?!:;])\s+|\n+")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@(?:[\w-]+\.)+[a-z]{2,}\b", re.IGNORECASE)
# Domains reserved for examples (RFC 2606) and the user of every git remote identify no person.
_NOBODY = re.compile(r"@(?:[\w-]+\.)*(?:example(?:\.(?:com|net|org))?|test|invalid)$|^git@", re.IGNORECASE)
# A national number counts only in the usual notation, (212) 736-5000 or 212-736-5000; sums and ids do not.
_WRITTEN_AS_PHONE = re.compile(r"\+|\(\d{3}\)\s?\d{3}[-. ]\d{4}|\b\d{3}([-.])\d{3}\1\d{4}\b")
_CARD = re.compile(
    r"(?<![\d.,-])(?:[2-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d{2}([ -]?)\d{6}\2\d{5})(?![\d-])"
)


OTHER_LANGUAGE, PERSONAL_DATA = "other language", "personal data"


@dataclasses.dataclass(frozen=True)
class FilterSettings:
    """Settings of the filters.

    Attributes:
      languages: ISO 639-1 codes of the languages to keep, by default English alone; empty for all.
      near_duplicate_threshold: Jaccard similarity of character 5-grams at which the later of two instructions
        is removed (1: only if equal).
      max_chars: maximum number of characters of an instruction.
      personal_data: what is done with e-mail addresses, phone and card numbers: "drop" removes instructions
        that have one in any column that is read; "mask" puts <EMAIL>, <PHONE> and <CARD> in their place;
        "keep" changes nothing.
    """

    languages: tuple[str, ...] = config_field(("en",), affects=INHERITED)
    near_duplicate_threshold: float = config_field(0.8, affects=INHERITED)
    max_chars: int = config_field(4000, affects=INHERITED)
    personal_data: Literal["drop", "mask", "keep"] = config_field("drop", affects=INHERITED)

    def __post_init__(self):
        if not 0.0 < self.near_duplicate_threshold <= 1.0:
            raise SteError(
                "config_invalid",
                "filters: near_duplicate_threshold must be above 0 and at most 1, "
                f"not {self.near_duplicate_threshold}",
            )
        if self.max_chars < 1:
            raise SteError("config_invalid", f"filters: max_chars must be 1 or more, not {self.max_chars}")
        for code in self.languages:
            if code not in LANGUAGES:
                raise SteError(
                    "config_invalid",
                    f"filters: {code!r} in languages is unknown; use lower-case ISO 639-1 codes such as 'en'",
                )


@dataclasses.dataclass(frozen=True)
class FunnelStep:
    """Numbers of instructions that a filter removed and left."""

    name: str
    removed: int
    left: int


def filter_instructions(
    instructions: list[Instruction], settings: FilterSettings
) -> tuple[list[Instruction], list[FunnelStep]]:
    """Applies the filters one after the other, the cheapest first, and keeps the order of the instructions.

    The first of several duplicates stays. A filter that is switched off gives no step. Instructions in other
    languages or with personal data are only removed on clear evidence.

    Args:
      instructions: the instructions to filter.
      settings: the filters to apply and their thresholds.

    Returns:
      The remaining instructions, and the counts of each filter.
    """
    filters: list[tuple[str, Callable[[list[str]], list[bool]]]] = [
        ("exact duplicate", _exact_duplicates),
        ("too long", lambda texts: [len(text) > settings.max_chars for text in texts]),
        ("near duplicate", functools.partial(_near_duplicates, threshold=settings.near_duplicate_threshold)),
    ]
    if settings.languages:
        name = f"{OTHER_LANGUAGE} than {', '.join(settings.languages)}"
        filters.append((name, functools.partial(_other_languages, languages=settings.languages)))
    steps = []
    for name, find in filters:
        found = find([instruction.whole for instruction in instructions])
        instructions = [kept for kept, removed in zip(instructions, found, strict=True) if not removed]
        steps.append(FunnelStep(name, sum(found), len(instructions)))
    if settings.personal_data != "keep":
        masked = [_masked(instruction) for instruction in instructions]
        changed = sum(one != other for one, other in zip(instructions, masked, strict=True))
        if settings.personal_data == "drop":
            instructions = [one for one, other in zip(instructions, masked, strict=True) if one == other]
            steps.append(FunnelStep(PERSONAL_DATA, changed, len(instructions)))
        else:
            instructions = masked
            steps.append(FunnelStep(f"{PERSONAL_DATA}, masked in {changed}", 0, len(instructions)))
    return instructions, steps


def _exact_duplicates(texts: list[str]) -> list[bool]:
    seen: set[str] = set()
    found = []
    for text in map(normal, texts):
        found.append(text in seen)
        seen.add(text)
    return found


def _near_duplicates(texts: list[str], threshold: float) -> list[bool]:
    """Returns True for near duplicates of earlier texts."""
    earlier = NearDuplicates(threshold)
    return [not earlier.add_if_new(text) for text in texts]


def _other_languages(texts: list[str], languages: tuple[str, ...]) -> list[bool]:
    with needs("select"):
        from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = sorted({*RIVAL_LANGUAGES, *languages})
    detector = LanguageDetectorBuilder.from_iso_codes_639_1(*map(IsoCode639_1.from_str, codes)).build()
    wanted = {IsoCode639_1.from_str(code) for code in languages}
    found = [_is_foreign(text, detector, wanted) for text in texts]
    detector.unload_language_models()
    return found


def _is_foreign(text: str, detector: "LanguageDetector", wanted: "set[IsoCode639_1]") -> bool:
    """Returns True if the prose of `text` is clearly in none of the wanted languages.

    A request in a wanted language about a foreign text pasted above or below it is not foreign.
    """
    prose = _CODE_OR_LINK.sub(" ", text)
    if sum(map(str.isalpha, prose)) < _MIN_LETTERS:
        return False
    best, of_best, of_wanted = _confidences(prose, detector, wanted)
    if best in wanted or of_best < _FOREIGN_AT_LEAST or of_wanted > _WANTED_AT_MOST:
        return False
    sentences = [sentence for sentence in _SENTENCE_END.split(prose) if len(sentence.split()) >= _MIN_WORDS]
    return not any(
        _confidences(end, detector, wanted)[0] in wanted for end in (*sentences[:1], *sentences[-1:])
    )


def _confidences(
    text: str, detector: "LanguageDetector", wanted: "set[IsoCode639_1]"
) -> "tuple[IsoCode639_1, float, float]":
    """Returns the most likely language, its confidence and the total confidence of the wanted languages."""
    values = {
        confidence.language.iso_code_639_1: confidence.value
        for confidence in detector.compute_language_confidence_values(text)
    }
    best = max(values, key=lambda code: values[code])
    return best, values[best], sum(values[code] for code in wanted)


def _masked(instruction: Instruction) -> Instruction:
    """Returns an instruction with placeholders for personal data in all of its texts."""
    return dataclasses.replace(
        instruction,
        text=mask(instruction.text),
        response=instruction.response and mask(instruction.response),
        reference=instruction.reference and mask(instruction.reference),
        texts={name: mask(text) for name, text in instruction.texts.items()},
    )


def mask(text: str) -> str:
    """Returns a text with <EMAIL>, <PHONE> and <CARD> in place of addresses, phone and card numbers."""
    for placeholder, find in (("<EMAIL>", _emails), ("<CARD>", _cards), ("<PHONE>", _phones)):
        for found in reversed(list(find(text))):
            text = f"{text[: found.start]}{placeholder}{text[found.end :]}"
    return text


class _Found(NamedTuple):
    """Place of personal data in a text."""

    start: int
    end: int


def _emails(text: str) -> Iterator[_Found]:
    return (_Found(*match.span()) for match in _EMAIL.finditer(text) if not _NOBODY.search(match[0]))


def _phones(text: str) -> Iterator[_Found]:
    with needs("select"):
        from phonenumbers import Leniency, PhoneNumberMatcher

    matches = PhoneNumberMatcher(text, "US", leniency=Leniency.VALID)
    return (_Found(m.start, m.end) for m in matches if _WRITTEN_AS_PHONE.search(m.raw_string))


def _cards(text: str) -> Iterator[_Found]:
    with needs("select"):
        from stdnum import luhn

    matches = _CARD.finditer(text)
    return (_Found(*match.span()) for match in matches if luhn.is_valid(re.sub(r"\D", "", match[0])))
