import pytest

from ste_jax.judging.prompts import BUILT_IN
from ste_jax.judging.verdict import ForcedVerdict, Verdict, parse_verdict, verdict_suffix
from tests.errors import raises


@pytest.mark.parametrize(
    ("text", "truncated", "expected"),
    [
        ("A is right.\n\nVerdict: [[A]]", False, Verdict("A", "ok")),
        ("[[B]]", True, Verdict("B", "ok")),
        ("[[B]] ... still [[B]].", False, Verdict("B", "ok")),
        ("[[A]]? no, [[B]]", False, Verdict("B", "both")),
        ("[[B]] and [[A]] and then", True, Verdict("A", "both")),
        ("[[[A]]]", False, Verdict("A", "ok")),
        ("A is better.", False, Verdict(None, "missing")),
        ("", False, Verdict(None, "missing")),
        ("So I would say [[", True, Verdict(None, "truncated")),
        ("[[ A ]] [[a]] [A] [[C]] [[AB]] [[А]] ［［A］］", False, Verdict(None, "missing")),
    ],
)
def test_parse(text, truncated, expected):
    assert parse_verdict(text, truncated=truncated) == expected


def words(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_tail_splits_around_the_letter():
    assert verdict_suffix(words, "so: [[") == ForcedVerdict(
        tuple(words("so: [[")), (ord("A"), ord("B")), (ord("]"), ord("]"))
    )


def test_tail_where_the_letter_is_merged_with_its_brackets():
    tail = verdict_suffix(lambda text: [*words(text[:-3]), 1000 + ord(text[-3])] if text else [])
    assert tail.choices == (1065, 1066)
    assert tail.closing == ()


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: [1, *words(text)],
        lambda text: words(text.replace("B", "bb")),
        lambda text: words(text.replace("B]", "b)")),
        lambda text: words(text.replace("B", "A")),
    ],
)
def test_an_unsuitable_tokenizer_is_refused(encode):
    with raises("verdict_tokens"):
        verdict_suffix(encode)


@pytest.fixture(scope="module")
def tokenizer(smollm2_path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name)


def test_real_tokenizer(tokenizer):
    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    tail = verdict_suffix(encode)
    reasoning = encode("Response A answers the question and")
    for label, choice in zip("AB", tail.choices, strict=True):
        text = tokenizer.decode([*reasoning, *tail.opening, choice, *tail.closing])
        assert text == f"Response A answers the question and\n\nVerdict: [[{label}]]"
        assert parse_verdict(text, truncated=True) == Verdict(label, "ok")
    assert tokenizer.decode(list(tail.choices)) == "AB"
    short = BUILT_IN["short"]
    assert 90 <= len(encode(short.system)) + len(encode(short.fill("", "", ""))) <= 110
