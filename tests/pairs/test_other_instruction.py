from typing import Any, cast

from ste_jax.decode.protocol import Sampling
from ste_jax.pairs.construction import PairChecks
from ste_jax.pairs.other_instruction import nearest, random
from ste_jax.pairs.rejected import PairInputs
from ste_jax.records import Generation, Instruction

TEXTS = {
    "ice": "Why does water freeze to ice?",
    "snow": "Why does water freeze to snow?",
    "rose": "Write a poem about a rose.",
    "tulip": "Write a poem about a tulip.",
    "odd": "Zzyzx qwx",
}


def inputs(ids: list[str], seed: int = 0) -> PairInputs:
    unused = cast(Any, None)  # these kinds make no calls
    return PairInputs(
        instructions=[Instruction(id=id_, text=TEXTS[id_], source="t") for id_ in ids],
        answers={id_: Generation(id=id_, text=f"to {id_}", tokens=[1], finish="stop") for id_ in ids},
        sampler=unused,
        tokenizer=unused,
        seed=seed,
        checks=PairChecks(),
        max_response_tokens=8,
        max_modified_tokens=8,
        high_temperature=Sampling(),
    )


def test_nearest_takes_the_answer_to_the_most_similar_instruction() -> None:
    found = nearest(inputs(list(TEXTS)))
    assert {id_: c and c.text for id_, c in found.items()} == {
        "ice": "to snow",
        "snow": "to ice",
        "rose": "to tulip",
        "tulip": "to rose",
    }
    assert all(c and c.modified in TEXTS.values() for c in found.values())


def test_only_the_given_instructions_are_used() -> None:
    whole = inputs(list(TEXTS))
    part = whole.restricted_to(["ice", "rose", "odd"])
    assert [i.id for i in part.instructions] == ["ice", "rose", "odd"]
    assert set(part.answers) == {"ice", "rose", "odd"}
    for kind in (nearest, random):
        assert {c.text for c in kind(part).values() if c} <= {"to ice", "to rose", "to odd"}


def test_random_never_takes_the_own_answer() -> None:
    drawn = set()
    for seed in range(20):
        found = random(inputs(list(TEXTS), seed))
        assert set(found) == set(TEXTS)
        assert all(c and c.text != f"to {id_}" for id_, c in found.items())
        drawn.add(tuple(c.text for c in found.values() if c))
    assert len(drawn) > 10


def test_a_single_instruction_has_no_other() -> None:
    assert random(inputs(["ice"])) == nearest(inputs(["ice"])) == {}
