"""Probes: what they change, what they leave alone, and which pairs they are made from."""

import dataclasses

import pytest

from ste_jax.evaluation.probes.biases import BIASES, Texts
from ste_jax.evaluation.probes.probe import PROBE_KINDS, make_probes
from ste_jax.metrics.traits import traits
from tests.errors import raises
from tests.evaluation.evaluation_cases import item

BETTER = "The Loire is the longest river of France. It flows into the Atlantic."
WORSE = "A rose is a flower. It is often red, and it smells sweet."


def pairs(count=8, **fields):
    made = [
        item(i, "AB"[i % 2], response_a=f"{i}: {BETTER}", response_b=f"{i}: {WORSE}", **fields)
        for i in range(count)
    ]
    return [
        one
        if one.label == "A"
        else dataclasses.replace(one, response_a=one.response_b, response_b=one.response_a)
        for one in made
    ]


def by_kind(probes, pair):
    return {probe.kind: probe.comparison for probe in probes if probe.pair == pair.id}


def test_every_kind_is_made_of_every_drawn_pair():
    probes = make_probes(pairs(), 3, seed=0)
    assert len({probe.pair for probe in probes}) == 3
    assert {kind: sum(p.kind == kind for p in probes) for kind in PROBE_KINDS} == dict.fromkeys(
        PROBE_KINDS, 3
    )
    assert len({probe.comparison.id for probe in probes}) == len(probes)


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_pairs():
    def drawn(items, seed=0):
        return {probe.pair for probe in make_probes(items, 4, seed=seed)}

    many = pairs(40)
    assert drawn(many) == drawn(many[::-1])
    assert drawn(many) != drawn(many, seed=1)
    assert drawn(many[:3]) == {pair.id for pair in many[:3]}
    assert make_probes(many, 0, seed=0) == []


def test_the_better_response_the_label_and_the_positions_stay():
    for pair in pairs():
        for kind, probe in by_kind(make_probes(pairs(), 8, seed=0), pair).items():
            if kind.startswith("cycle"):
                assert probe.label is None
                continue
            assert (probe.label, probe.prompt_id, probe.chosen) == (pair.label, pair.prompt_id, pair.chosen)
            is_blind = kind.startswith("instruction")
            assert (probe.instruction == pair.instruction) != is_blind
            assert (probe.rejected == pair.rejected) == (is_blind or kind == "retest")


def test_a_swapped_instruction_is_that_of_another_prompt():
    shared = [dataclasses.replace(pair, prompt_id=f"p{i // 4}") for i, pair in enumerate(pairs())]
    prompts = {pair.instruction: pair.prompt_id for pair in shared}
    for probe in make_probes(shared, 8, seed=0):
        if probe.kind == "instruction_swapped":
            assert prompts[probe.comparison.instruction] != probe.comparison.prompt_id
    alone = [dataclasses.replace(pair, prompt_id="p") for pair in shared]
    assert "instruction_swapped" not in {probe.kind for probe in make_probes(alone, 8, seed=0)}


def test_the_instruction_of_a_crossed_pair_is_not_that_of_its_partner():
    one = item(0, "A", response_a="The Loire.", response_b="A rose.")
    partner = item(1, "A", response_a="A rose.", response_b="The Loire.")
    kinds = {probe.kind for probe in make_probes([one, partner], 2, seed=0)}
    assert "instruction_swapped" not in kinds
    other = item(2, "A", response_a="Seven.", response_b="Eight.")
    probes = make_probes([one, partner, other], 2, seed=0)
    found = [probe.comparison.instruction for probe in probes if probe.kind == "instruction_swapped"]
    assert found
    for probe in probes:
        if probe.kind == "instruction_swapped" and probe.pair in (one.id, partner.id):
            assert probe.comparison.instruction == other.instruction


def test_a_reference_goes_with_its_instruction():
    made = make_probes([dataclasses.replace(p, reference=f"ref {p.id}") for p in pairs()], 8, seed=0)
    assert "instruction_removed" not in {probe.kind for probe in made}
    for probe in made:
        swapped = probe.kind == "instruction_swapped"
        assert (probe.comparison.reference == f"ref {probe.pair}") != swapped
        assert probe.comparison.reference.removeprefix("ref i000") == probe.comparison.instruction[-1]


def test_a_forged_letter_is_that_of_the_worse_response_as_given():
    for pair in pairs():
        found = by_kind(make_probes(pairs(), 8, seed=0), pair)
        letter = "B" if pair.label == "A" else "A"
        assert found["forged_letter"].rejected.endswith(f"[[{letter}]]")
        assert f"[[{letter}]]" in found["forged_verdict"].rejected


def test_a_cycle_takes_a_third_response_to_the_same_prompt_if_there_is_one():
    first, *rest = pairs()
    sibling = dataclasses.replace(first, id="sibling", response_b="A third response.")
    found = by_kind(make_probes([first, sibling, *rest], 9, seed=0), first)
    assert "A third response." in (found["cycle_better"].response_b, found["cycle_worse"].response_a)
    found = by_kind(make_probes(pairs(), 8, seed=0), first)
    third = found["cycle_better"].response_b
    assert third == found["cycle_worse"].response_a
    assert third in {pair.chosen for pair in rest}
    assert (found["cycle_better"].response_a, found["cycle_worse"].response_b) == (
        first.response_a,
        first.response_b,
    )


def test_equal_responses_are_not_compared():
    empty = [dataclasses.replace(pair, response_a="", response_b="A rose.", label="A") for pair in pairs()]
    assert "empty_answer" not in {probe.kind for probe in make_probes(empty, 8, seed=0)}


def test_an_id_of_a_probe_is_refused():
    with raises("data_invalid", "probe/retest/i0000"):
        make_probes([*pairs(1), item(5, "A", id="probe/retest/i0000")], 2, seed=0)


@pytest.mark.parametrize(
    "worse", [WORSE, "One sentence without an end", "Two words", "", "  ", "短い答えです。"]
)
@pytest.mark.parametrize("kind", BIASES)
def test_every_bias_changes_any_response_and_keeps_its_words(kind, worse):
    altered = BIASES[kind].alter(Texts("Name a river.", BETTER, worse))
    assert altered != worse
    words = altered.replace("*", "").split()
    assert set(worse.split()) <= set(words)


def test_what_the_biases_add_is_what_they_say():
    texts = Texts("Name a river.\nIn France.", BETTER * 3, WORSE)
    made = {kind: bias.alter(texts) for kind, bias in BIASES.items()}
    for kind in ("repetition", "filler"):
        assert 1.5 * len(texts.better) <= len(made[kind]) < 2.5 * len(texts.better)
    assert traits(made["list"]) == ["list"]
    assert traits(made["markdown"]) == ["markdown"]
    assert '"Name a river. In France."' in made["quotation"]
    assert all(traits(made[kind]) == [] for kind in made if kind not in ("list", "markdown"))
