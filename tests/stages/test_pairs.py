import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ste_jax.config import RunConfig, fingerprint_of
from ste_jax.pairs.predicates import HELD_OUT
from ste_jax.records import Comparison, Generation, Instruction, Record
from ste_jax.stages import pairs
from ste_jax.stages.context import Context
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.success import require_success
from tests.errors import raises
from tests.pairs.answered import TEXTS

MakeConfig = Callable[..., RunConfig]
MakeContext = Callable[..., Context]


# ---- pairs from answers that are on disk already ----

GOOD = "Water freezes at zero degrees because its molecules settle into a lattice."
OTHER = "Roses want sun, and soil that drains; cut them back before spring comes."
ANSWERS = {
    "a": (GOOD, OTHER),
    "b": (GOOD, OTHER),
    "c": (GOOD, GOOD.upper()),
    "d": (GOOD, GOOD + " Yes"),
    "e": (GOOD, "  "),
    "f": (GOOD, "I'm sorry, but I can't help with that."),
    "g": (GOOD, "Yes."),
    "h": (GOOD, OTHER),
    "i": (GOOD, OTHER),
    "j": (GOOD, OTHER),
    "k": (GOOD, OTHER),
    "l": (GOOD, OTHER),
}


def store(context: Context, name: str, records: list[Record], fingerprint: dict) -> None:
    """Leaves a finished record set in the workdir, as an earlier process would."""
    made = RecordSet(context.workdir / name, type(records[0]), fingerprint)
    for record in records:
        made.add(record.id, [record], prompt_tokens=10, generated_tokens=3)
    made.finish([record.id for record in records], {"too_long": []})


def prepared(context: Context, texts: dict[str, dict[str, str]], cut: str = "") -> list[Instruction]:
    """Stores instructions and the completions of each kind of call; the budget ended that of `cut`."""
    instructions = [Instruction(id=i, text=f"Why does {i} freeze?", source="t") for i in ANSWERS]
    store(context, "select", instructions, {})
    fingerprint = pairs.made_from(context)
    for name, by_id in texts.items():
        generations = [
            Generation(id=i, text=text, tokens=[7] * len(text), finish="length" if i == cut else "stop")
            for i, text in by_id.items()
        ]
        store(context, f"pairs/{name}", generations, fingerprint)
    return instructions


def degraded_run(context: Context) -> list[Comparison]:
    chosen = {i: texts[0] for i, texts in ANSWERS.items() if i != "h"}  # h was too long to be asked
    worse = {i: texts[1] for i, texts in ANSWERS.items() if i != "h"}
    return pairs.run(context, prepared(context, {"answers": chosen, "degraded": worse}))


SMALL = {"mode": "degraded", "validation": 1, "test": 1}


def test_pairs_hold_the_answers_and_the_rest_is_counted_by_reason(make_context: MakeContext) -> None:
    context = make_context(pairs=SMALL)
    made = degraded_run(context)
    assert [p.id for p in made] == ["a", "b", "i", "j", "k", "l"]
    for one in made:
        assert (one.chosen, one.rejected) == (GOOD, OTHER)
        tokens = [one.metadata["num_tokens_a"], one.metadata["num_tokens_b"]]
        assert (tokens if one.label == "A" else tokens[::-1]) == [len(GOOD), len(OTHER)]
        assert one.subset == "degraded"
        assert (one.metadata["generator"], one.metadata["modified_instruction"]) == ("tiny", None)
    summary = require_success(context.workdir / "pairs").summary
    assert (summary["asked"], summary["made"]) == (12, 6)
    assert summary["rejected"] == {
        "empty_response": 1,
        "length_ratio": 1,
        "refusal": 1,
        "responses_equal": 1,
        "responses_near": 1,
        "too_long": 1,
    }
    splits = pairs.split(context.config, made)
    assert [len(part) for part in vars(splits).values()] == [4, 1, 1, 0]
    assert pairs.run(context, []) == made  # finished: read, not made


def test_a_run_without_pairs_names_the_reasons(make_context: MakeContext) -> None:
    context = make_context(pairs=SMALL)
    same = {i: GOOD for i in ANSWERS}
    with raises("no_pairs", "responses_equal 12"):
        pairs.run(context, prepared(context, {"answers": same, "degraded": same}))


def test_the_position_of_the_better_response_is_drawn(make_context: MakeContext) -> None:
    labels = {"".join(p.label for p in degraded_run(make_context(seed=1, pairs=SMALL)))}
    assert labels != {"AAAAAA"}
    assert labels != {"BBBBBB"}


def test_a_kill_before_the_end_counts_no_token_twice(make_context: MakeContext) -> None:
    context = make_context(pairs=SMALL)
    made = degraded_run(context)
    success = context.workdir / "pairs" / "SUCCESS.json"
    before = require_success(context.workdir / "pairs").work
    assert (before["prompt_tokens"], before["generated_tokens"]) == (220, 66)
    success.unlink()
    (context.workdir / "pairs" / "journal").mkdir()
    select = context.workdir / "select"
    instructions = [Instruction(id=i, text=f"Why does {i} freeze?", source="t") for i in ANSWERS]
    assert require_success(select).count == len(instructions)
    assert pairs.run(context, instructions) == made
    after = require_success(context.workdir / "pairs").work
    assert {**after, "seconds": 0} == {**before, "seconds": 0}


def test_modified_instructions_are_checked_before_they_are_answered(make_context: MakeContext) -> None:
    context = make_context(pairs={**SMALL, "mode": "modified"})
    modified = {i: f"How should I grow roses in a cold garden {i}?" for i in ANSWERS}
    modified |= {"a": "Why does a freeze?", "b": "1. One\n2. Two", "c": "Why does c freeze? Why?"}
    answers = {i: OTHER for i in ANSWERS if i not in "abcd"}
    made = pairs.run(
        context,
        prepared(
            context,
            {"answers": dict.fromkeys(ANSWERS, GOOD), "modified": modified, "modified_answers": answers},
            cut="d",
        ),
    )
    assert [p.id for p in made] == list("efghijkl")
    assert made[0].metadata["modified_instruction"] == modified["e"]
    rejected = require_success(context.workdir / "pairs").summary["rejected"]
    # d is a whole instruction to look at, yet its budget ended it.
    assert rejected == {"modified_equal": 1, "modified_near": 1, "modified_unparsable": 2}


@pytest.mark.parametrize(("temperature", "equal"), [(0.0, len(ANSWERS)), (2.0, 0)])
def test_a_high_temperature_answer_is_drawn_with_its_own_sampling(
    make_context: MakeContext, temperature: float, equal: int
) -> None:
    greedy, high = ({"temperature": t, "top_p": 1.0} for t in (0.0, temperature))
    context = make_context(
        pairs={**SMALL, "mode": "high_temperature", "sampling": greedy, "high_temperature": high}
    )
    instructions = prepared(context, {})
    with raises("no_pairs", f"responses_equal {equal}") if equal else contextlib.nullcontext():
        pairs.run(context, instructions)
    assert require_success(context.workdir / "pairs").summary["rejected"].get("responses_equal", 0) == equal


@pytest.mark.parametrize(
    ("mode", "same"), [(("degraded", "truncated"), True), (("degraded", "high_temperature"), False)]
)
def test_what_no_mode_uses_leaves_the_pairs_as_they_are(
    make_context: MakeContext, mode: tuple[str, ...], same: bool
) -> None:
    warm, hot = ({"temperature": t, "top_p": 1.0} for t in (1.0, 1.5))
    made_from = []
    for high in (warm, hot):
        context = make_context(pairs={**SMALL, "mode": mode, "high_temperature": high})
        prepared(context, {})
        made_from.append(pairs.made_from(context))
    assert (made_from[0] == made_from[1]) == same


OTHERS = {
    "ice": (
        "Why does water freeze to ice in winter?",
        "Its molecules settle into a lattice at zero degrees.",
    ),
    "snow": ("Why does water freeze to snow in winter?", "Vapour in a cloud turns into crystals that fall."),
    "rose": ("Write a poem about a rose.", "Red it stands beside the wall until the autumn."),
    "car": ("Fix my red car, please.", "I would have to see it first; tell me which noise it makes."),
    "tea": ("How long should green tea steep?", "Two minutes in water that has cooled down a little."),
    "bike": ("Fix my red bike, please.", "Turn it upside down and look whether the chain came off."),
    "sky": ("Why is the sky blue in summer?", "Short waves of light are scattered more than long ones."),
    "song": ("Write a song about a rose.", "Petals open, petals close, nobody but the gardener knows."),
    "long": ("Why?", ""),
}


def others_run(context: Context) -> list[Comparison]:
    """Runs the stage over `OTHERS`, of which "long" was not answered."""
    instructions = [Instruction(id=i, text=text, source="t") for i, (text, _) in OTHERS.items()]
    store(context, "select", instructions, {})
    encode = context.seed_model.tokenizer.encode_plain
    answers = [
        Generation(id=i, text=text, tokens=encode(text), finish="stop")
        for i, (_, text) in OTHERS.items()
        if text
    ]
    store(context, "pairs/answers", answers, pairs.made_from(context))
    return pairs.run(context, instructions)


ACROSS = {"mode": ("nearest", "random", "truncated"), "validation": 1, "test": 1}


def test_answers_of_other_instructions_and_beginnings_cost_no_call(make_context: MakeContext) -> None:
    context = make_context(pairs=ACROSS)
    found = {p.id: p for p in others_run(context)}
    answers = {text: id_ for id_, (_, text) in OTHERS.items() if text}
    assert {pair.subset for pair in found.values()} == {"nearest", "random", "truncated"}
    assert not [p for p in found.values() if p.prompt_id == "long"]
    part = {p.prompt_id: p.metadata["split"] for p in found.values()}
    for pair in found.values():
        assert answers[pair.chosen] == pair.prompt_id
        if pair.subset == "truncated":
            assert pair.chosen.startswith(pair.rejected)
            assert 0 < len(pair.rejected) < 0.75 * len(pair.chosen)
        else:
            other = answers[pair.rejected]
            assert other != pair.prompt_id
            assert part[other] == part[pair.prompt_id]
            assert pair.metadata["modified_instruction"] == OTHERS[other][0]
    summary = require_success(context.workdir / "pairs").summary
    assert (summary["mode"], summary["asked"]) == ("nearest, random, truncated", 27)
    assert summary["made"] == len(found) == 27 - sum(summary["rejected"].values())
    assert summary["rejected"]["too_long"] == 3


def test_no_response_of_a_held_out_pair_occurs_in_a_training_pair(make_context: MakeContext) -> None:
    for seed in range(4):
        context = make_context(seed=seed, pairs=ACROSS)
        splits = pairs.split(context.config, others_run(context))
        texts = {
            name: {text for pair in part for text in (pair.chosen, pair.rejected)}
            for name, part in vars(splits).items()
        }
        assert texts["train"]
        assert texts["validation"]
        assert texts["test"]
        assert not texts["train"] & (texts["validation"] | texts["test"])
        assert not texts["validation"] & texts["test"]


@pytest.mark.parametrize(("mode", "same"), [(("truncated",), True), (("truncated", "random"), False)])
def test_held_out_numbers_matter_where_pairs_depend_on_them(
    make_context: MakeContext, mode: tuple[str, ...], same: bool
) -> None:
    found = []
    for test in (1, 2):
        context = make_context(pairs={**ACROSS, "mode": mode, "test": test})
        prepared(context, {})
        found.append(pairs.made_from(context))
    assert (found[0] == found[1]) == same


def test_missing_candidates_and_unparsable_ones_are_counted_apart(make_context: MakeContext) -> None:
    context = make_context(pairs={**SMALL, "mode": "modified"})
    asked = {
        "ice": "Why does water freeze?",
        "hot": "Why does water boil?",
        "dew": "Why does dew fall?",
        "fog": "Why does fog rise?",
        "ice2": "Why does ice float?",
    }
    instructions = [Instruction(id=i, text=text, source="t") for i, text in asked.items()]
    store(context, "select", instructions, {})
    modified = {i: f"How should I grow roses in a cold garden {i}?" for i in asked}
    # Two have no candidate: with the examples the prompt was too long for x, or x' was too long itself.
    texts = {
        "answers": dict.fromkeys(asked, GOOD),
        "modified": {i: text for i, text in (modified | {"hot": "1. One\n2. Two"}).items() if i != "dew"},
        "modified_answers": {i: OTHER for i in ("ice", "ice2")},
    }
    for name, by_id in texts.items():
        made = [Generation(id=i, text=text, tokens=[7], finish="stop") for i, text in by_id.items()]
        store(context, f"pairs/{name}", made, pairs.made_from(context))
    pairs.run(context, instructions)
    summary = require_success(context.workdir / "pairs").summary
    assert summary["rejected"] == {"modified_unparsable": 1, "no_candidate": 2}


def test_each_way_to_modify_reads_its_own_calls(make_context: MakeContext) -> None:
    context = make_context(pairs={**SMALL, "mode": ("modified", "modified_one_call")})
    asked, both = "How should I grow roses in a cold garden?", "Which soil do roses want by the sea?"
    written = f"<new_instruction>\n{both}\n</new_instruction>\n<answer>\n{OTHER} At once.\n</answer>"
    calls = {"answers": GOOD, "modified": asked, "modified_answers": OTHER, "modified_one_call": written}
    stored = {name: dict.fromkeys(ANSWERS, text) for name, text in calls.items()}
    made = {p.id: p for p in pairs.run(context, prepared(context, stored))}
    assert len(made) == 2 * len(ANSWERS)
    for id_ in ANSWERS:
        two, one = made[f"{id_}.modified"], made[f"{id_}.modified_one_call"]
        assert (two.metadata["modified_instruction"], two.rejected) == (asked, OTHER)
        assert (one.metadata["modified_instruction"], one.rejected) == (both, f"{OTHER} At once.")
    work = require_success(context.workdir / "pairs").work
    assert (work["prompt_tokens"], work["generated_tokens"]) == (480, 144)  # four calls an instruction


# ---- pairs whose label is certain, from the answers of tests/pairs/answered.py ----

MODES = ("crossed", "padded", "cut_off", "neutral", "constraint")


def certain_run(context: Context) -> list[Comparison]:
    instructions = [Instruction(id=i, text=text, source="t") for i, (text, _) in TEXTS.items()]
    store(context, "select", instructions, {})
    fingerprint = pairs.made_from(context)
    others = {i: f"I do not know. Ask {i.upper()} (a friend), perhaps?" for i in TEXTS}
    for name, by_id in (
        ("answers", {i: text for i, (_, text) in TEXTS.items()}),
        ("high_temperature", others),
    ):
        generations = [Generation(id=i, text=text, tokens=[7], finish="stop") for i, text in by_id.items()]
        store(context, f"pairs/{name}", generations, fingerprint)
    return pairs.run(context, instructions)


@pytest.mark.parametrize("mode", [{"padded": 0.6, "cut_off": 0.4}, MODES])
def test_pairs_whose_label_is_certain_stay_within_the_parts(make_context: MakeContext, mode: object) -> None:
    context = make_context(
        pairs={"mode": mode, "test": 2, "validation": 2},
        train={"objective": "pairwise"},
        annotate={"max_new_tokens": 0, "samples": 1, "force_verdict": True},
    )
    made = certain_run(context)
    assert len({p.id for p in made}) == len(made) > 0
    used: dict[str, set[str]] = {}
    for one in made:
        assert one.label == ("tie" if one.subset == "neutral" else one.label)
        used.setdefault(one.metadata["split"], set()).update(one.metadata["sources"])
    parts = list(used.values())
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(parts, 2))
    summary = require_success(context.workdir / "pairs").summary
    assert summary["made_by_mode"] == Counter(one.subset for one in made)
    split = pairs.split(context.config, made)
    assert {one.metadata["split"] for one in split.train} == {"train"}
    constraints = [one for one in made if one.subset == "constraint"]
    held_out = {kind.name for kind in HELD_OUT}
    for one in constraints:
        assert (one.metadata["details"]["type"] in held_out) == (one.metadata["split"] == "test")


@pytest.mark.parametrize(
    ("mode", "test_mode"),
    [
        ({"padded": 0.5, "cut_off": 0.5}, {"random_crossed": 0.7, "cut_off": 0.3}),
        ("random", ("random_crossed", "padded")),
        (("padded", "cut_off"), "random"),
    ],
)
def test_test_pairs_are_of_their_own_kinds(
    make_context: MakeContext, mode: object, test_mode: object
) -> None:
    context = make_context(pairs={"mode": mode, "test_mode": test_mode, "test": 2, "validation": 2})
    made = certain_run(context)
    kinds: dict[str, set[str]] = {}
    for one in made:
        kinds.setdefault(one.metadata["split"], set()).add(one.subset)
    names = ({value} if isinstance(value, str) else set(value) for value in (mode, test_mode))
    trained, tested = names
    assert kinds["train"] == trained
    assert kinds["validation"] <= trained
    assert kinds["test"]
    assert kinds["test"] <= tested
    ids = {part: {one.prompt_id for one in made if one.metadata["split"] == part} for part in kinds}
    assert ids["test"].isdisjoint(ids["train"] | ids["validation"])
    assert {one.id for one in pairs.split(context.config, made).test} == {
        one.id for one in made if one.metadata["split"] == "test"
    }


def test_the_kinds_of_the_test_matter_where_there_are_any(make_config: MakeConfig) -> None:
    same, other = make_config(), make_config(pairs={"test_mode": "truncated"})
    assert "test_mode" not in str(fingerprint_of(same, "pairs"))
    assert fingerprint_of(same, "pairs") != fingerprint_of(other, "pairs")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"pairs": {"test_mode": {"crossed": 0.0}}}, "pairs.test_mode"),
        ({"pairs": {"mode": ("solutions", "padded")}}, "pairs.solutions"),
        ({"pairs": {"test_mode": "code"}}, "pairs.functions"),
        ({"pairs": {"test_mode": ("crossed", "crossed")}}, "pairs.test_mode"),
        ({"pairs": {"test_mode": "crosed"}}, "pairs.test_mode"),
        ({"pairs": {"mode": {"crossed": 0.0}}}, "pairs.mode"),
        ({"pairs": {"mode": {"crossed": -1.0, "padded": 1.0}}}, "pairs.mode"),
        ({"pairs": {"mode": {"crosed": 1.0}}}, "pairs.mode"),
        ({"pairs": {"mode": {}}}, "pairs.mode"),
        ({"pairs": {"mode": ("neutral", "crossed")}}, "neutral"),
    ],
)
def test_impossible_mixtures_are_refused(make_config: MakeConfig, changes: dict, place: str) -> None:
    with raises("config_invalid", place):
        make_config(**changes)


def test_solved_problems_are_divided_into_parts(make_context: MakeContext, tmp_path: Path) -> None:
    file = tmp_path / "solved.jsonl"
    rows = [
        {
            "question": f"Tom has {n} pens and buys {n + 3}. How many are there?",
            "answer": f"There are {n}+{n + 3}=<<{n}+{n + 3}={2 * n + 3}>>{2 * n + 3} pens.\n#### {2 * n + 3}",
        }
        for n in range(20, 80)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"mode": ("solutions", "padded"), "test": 2, "validation": 2, "solutions": str(file)}
    context = make_context(pairs=settings)
    made = [pair for pair in certain_run(context) if pair.subset == "solutions"]
    parts: dict[str, set[str]] = {}
    for pair in made:
        parts.setdefault(pair.metadata["split"], set()).add(pair.instruction)
    assert set(parts) == {"train", "validation", "test"}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == len(made)
    assert len(parts["train"]) <= len(TEXTS)
    before = pairs.made_from(context)
    file.write_text(file.read_text().replace("Tom", "Tim"))
    assert pairs.made_from(context) != before
    file.unlink()
    with raises("file_not_found", "solved.jsonl"):
        context.check_files()


def test_problems_of_arithmetic_have_ids_of_their_own_in_every_part(make_context: MakeContext) -> None:
    context = make_context(pairs={"mode": ("arithmetic", "padded"), "test": 2, "validation": 2})
    made = [pair for pair in certain_run(context) if pair.subset == "arithmetic"]
    assert {pair.metadata["split"] for pair in made} == {"train", "validation", "test"}
    assert len({pair.id for pair in made}) == len({pair.instruction for pair in made}) == len(made)
