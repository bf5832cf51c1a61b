import re
import subprocess
import sys
from collections import Counter

import pytest

from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.constraint import constraint, with_requirement
from ste_jax.pairs.predicate import Predicate
from ste_jax.pairs.predicates import HELD_OUT, TRAINED

# Pairs of an instruction and two answers, of many forms.
TEXTS = [
    (
        "How do I boil an egg?",
        "Put it in hot water. Wait six minutes, then cool it.",
        "You boil it for 7 minutes!",
    ),
    (
        "Name three fruits",
        "Apples, pears and plums.",
        "- apples\n- pears\n- plums",
    ),
    (
        "Why is the sky blue?",
        "Air scatters blue light more than red light.",
        "Good question! Do you know Rayleigh?",
    ),
    (
        "Say hello",
        "Hello, dear reader.",
        "hi there, my friend, it's good to see you",
    ),
    (
        "Add two numbers in Python",
        "```python\nprint(1 + 2)\n```",
        "Use the plus sign between both numbers.",
    ),
    (
        "Tell me a joke",
        'A man said "ouch" and left.',
        "Why did it cross? To get over there, of course.",
    ),
    (
        "Describe Rome",
        "# Rome\n\nThe city is old.\n\nIt began in 753 BC.",
        "Rome (in Italy) is a large, busy city.",
    ),
    (
        "Who was Ada Lovelace?",
        "She wrote notes on Babbage's engine in 1843.",
        "A **mathematician** of England.",
    ),
    (
        "Best season?",
        "I prefer autumn: it is mild.",
        "Spring is the best season. Flowers bloom. Birds sing songs.",
    ),
    (
        "Wie geht es?",
        "Mir geht es gut, und dir?",
        "Danke, alles ist in Ordnung mit mir und der Familie.",
    ),
    (
        "天气怎么样？",
        "今天天气很好。",
        "The weather is fine today, and it is not cold.",
    ),
    (
        "Define entropy",
        "Entropy measures disorder.\r\n\r\nIt never shrinks in closed systems.",
        "A count of states.",
    ),
    (
        "Write a poem",
        "Roses are red,\nviolets are blue,\nhoney is sweet.",
        "the sea is calm, the moon is near",
    ),
    (
        "Plan my day",
        "1. Wake up\n2. Eat\n3. Work",
        "Wake up early, eat well, and then work until noon.",
    ),
    (
        "Is it late?",
        "It isn't late.",
        "It is not late, NASA says so.",
    ),
    (
        "How far is it?",
        "About 12 km, or an extraordinarily long walk.",
        "Not far.",
    ),
    (
        "Cheer me up",
        "Great job 🎉 Keep going!",
        "You did well. Everything will be fine. Trust yourself.",
    ),
    (
        "Explain gravity",
        "Masses attract each other; " * 9,
        "Masses attract.",
    ),
    (
        "Explain tides",
        "The moon pulls water. " * 12,
        "The moon pulls the water up twice a day.",
    ),
    (
        "What is love?",
        "...",
        "Love is patient.",
    ),
]
ANSWERS = [
    Answered(id=f"i{at:02}", instruction=instruction, answer=answer, other=other)
    for at, (instruction, answer, other) in enumerate(TEXTS)
]
PREDICATES = {type_.name: type_ for type_ in TRAINED + HELD_OUT}


def requirement(candidate: Candidate) -> str:
    """Returns the sentence that was added to the instruction."""
    original = next(a.instruction for a in ANSWERS if a.id == candidate.sources[0])
    assert original in candidate.instruction
    return candidate.instruction.replace(original, "").strip()


def decided(candidate: Candidate) -> tuple[bool | None, bool | None]:
    """Returns whether the responses meet the requirement, with its values read back from its sentence."""
    type_ = PREDICATES[candidate.details["type"]]
    sentence = requirement(candidate)
    for wording in type_.wordings:
        pattern = re.sub(r"\\\{\d\\\}", "(.+)", re.escape(wording))
        if match := re.fullmatch(pattern, sentence):
            predicate = Predicate(type_, tuple(int(v) if v.isdigit() else v for v in match.groups()))
            return predicate.holds(candidate.better), predicate.holds(candidate.worse)
    raise AssertionError(sentence)


@pytest.mark.parametrize("types", [TRAINED, HELD_OUT, TRAINED + HELD_OUT], ids=["trained", "held_out", "all"])
@pytest.mark.parametrize("seed", range(3))
def test_the_better_response_meets_the_requirement_and_the_worse_fails_it(types, seed):
    candidates = constraint(ANSWERS, seed=seed, types=types)
    assert len(candidates) >= 20
    assert {decided(candidate) for candidate in candidates} == {(True, False)}
    assert {candidate.details["type"] for candidate in candidates} <= {type_.name for type_ in types}


@pytest.mark.parametrize("types", [TRAINED, HELD_OUT], ids=["trained", "held_out"])
def test_every_response_is_better_as_often_as_worse(types):
    candidates = constraint(ANSWERS, seed=0, types=types)
    better = Counter((c.details["pair"], c.better) for c in candidates)
    assert better == Counter((c.details["pair"], c.worse) for c in candidates)
    assert set(better.values()) == {1}


def test_candidates_name_their_source():
    candidates = constraint(ANSWERS, seed=0, types=TRAINED)
    assert len({candidate.key for candidate in candidates}) == len(candidates)
    by_id = {answered.id: answered for answered in ANSWERS}
    for candidate in candidates:
        answered = by_id[candidate.details["pair"]]
        assert candidate.sources == (answered.id,)
        assert {candidate.better, candidate.worse} == {answered.answer, answered.other}
        assert set(candidate.details) == {"type", "pair"}
        assert not candidate.is_tie


def test_the_order_of_instructions_does_not_matter():
    expected = constraint(ANSWERS, seed=1, types=TRAINED)
    assert constraint(ANSWERS[::-1], seed=1, types=TRAINED) == expected
    assert constraint(ANSWERS[7:] + ANSWERS[:7], seed=1, types=TRAINED) == expected
    assert constraint(ANSWERS, seed=2, types=TRAINED) != expected


def test_other_processes_make_the_same_candidates():
    program = (
        "from tests.pairs.test_constraint import ANSWERS, TRAINED, constraint\n"
        "print(ascii(constraint(ANSWERS, seed=1, types=TRAINED)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert outputs == {ascii(constraint(ANSWERS, seed=1, types=TRAINED))}


def test_types_are_used_evenly():
    texts = "Yes, I know: it is late.", "No! Why should you?"
    same = [Answered(id=str(at), instruction="Go on", answer=texts[0], other=texts[1]) for at in range(60)]
    used = Counter(candidate.details["type"] for candidate in constraint(same, seed=0, types=TRAINED))
    assert len(used) >= 12
    assert max(used.values()) - min(used.values()) <= 2


@pytest.mark.parametrize(
    ("answer", "other"),
    [
        ("Yes, I do.", None),
        ("Yes, I do.", "Yes, I do."),
        ("Yes, I do.\r\n", "\ufeffYes, I do."),
        ("Yes, I do.", ""),
        (" \n", "Yes, I do."),
        ("...", "!!!"),
        (r"¯\_(ツ)_/¯", "今天天气很好"),
    ],
)
def test_answers_that_nothing_tells_apart_make_no_pair(answer, other):
    answers = [Answered(id="a", instruction="Do you?", answer=answer, other=other)]
    assert constraint(answers, seed=0, types=TRAINED + HELD_OUT) == []


def test_both_directions_are_needed():
    contains_word = [PREDICATES["contains_word"]]
    answers = [Answered(id="a", instruction="Go", answer="Bread, bread.", other="Those were there.")]
    assert constraint(answers, seed=0, types=contains_word) == []
    assert constraint([], seed=0, types=TRAINED) == []
    assert constraint(answers, seed=0, types=[]) == []


@pytest.mark.parametrize(
    ("instruction", "sentence", "expected"),
    [
        ("Why?", "Use no commas.", "Why? Use no commas."),
        ("why ", "Use no commas.", "why\n\nUse no commas."),
        ("Fix:\n```\nx\n```\n", "Use no commas.", "Fix:\n```\nx\n```\n\nUse no commas."),
        ("Why?", "In English, answer this:", "In English, answer this: Why?"),
        ("Fix:\nx", "In English, answer this:", "In English, answer this:\n\nFix:\nx"),
        (" \n", "Use no commas.", "Use no commas."),
    ],
)
def test_the_requirement_stands_apart_from_the_instruction(instruction, sentence, expected):
    assert with_requirement(instruction, sentence) == expected
