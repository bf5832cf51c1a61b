import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from etils import epath

from ste_jax.config import RunConfig
from ste_jax.pairs.splits import PART, HeldOut, Part, Splits, build_within_parts, split_pairs
from ste_jax.records import ORDERS, Comparison, Instruction
from ste_jax.stages.held_out import check_labelled_pairs
from ste_jax.stages.pairs import split
from ste_jax.storage.readers import IndexedRecords, PickedRecords
from ste_jax.storage.record_set import RecordSet
from tests.errors import raises

MakeConfig = Callable[..., RunConfig]


def pair(number: int, instruction: str | None = None) -> Comparison:
    return Comparison(
        id=f"p{number:02d}",
        prompt_id=instruction or f"p{number:02d}",
        instruction="Name a river.",
        response_a=f"The Rhine {number}.",
        response_b=f"A rose {number}.",
        label="A" if number % 3 else "B",
    )


PAIRS = [pair(i) for i in range(12)]


def ids(part: list[Comparison]) -> list[str]:
    return [p.id for p in part]


def all_ids(splits: Splits) -> list[str]:
    return sorted(ids([*splits.train, *splits.validation, *splits.test, *splits.labelled]))


def test_splits_are_a_partition(make_config: MakeConfig) -> None:
    splits = split(make_config(), PAIRS)
    assert all_ids(splits) == ids(PAIRS)
    assert [len(part) for part in vars(splits).values()] == [7, 2, 3, 0]
    assert all(ids(part) == sorted(ids(part)) for part in vars(splits).values())


def test_splits_depend_on_the_seed_and_not_on_the_order(make_config: MakeConfig) -> None:
    first = split(make_config(), PAIRS)
    assert split(make_config(), PAIRS[::-1]) == first
    tests = {tuple(ids(split(make_config(seed=seed), PAIRS).test)) for seed in range(8)}
    assert len(tests) > 4


def test_a_pair_more_moves_no_other_pair_between_the_held_out_ones(make_config: MakeConfig) -> None:
    # Ranks belong to the instructions: a new pair can push at most one pair out of each held-out set.
    before, after = split(make_config(), PAIRS), split(make_config(), [*PAIRS, pair(12)])
    assert len(set(ids(before.test)) - set(ids(after.test))) <= 1


@pytest.mark.parametrize("count", [0, 3, 5])
def test_nothing_left_to_train_on(make_config: MakeConfig, count: int) -> None:
    with raises("no_training_pairs", f"all {count} pairs"):
        split(make_config(), PAIRS[:count])


def test_the_pairs_of_an_instruction_stay_together(make_config: MakeConfig) -> None:
    several = [dataclasses.replace(pair(i), prompt_id=f"i{i // 3}") for i in range(12)]
    splits = split(make_config(pairs={"mode": ("nearest", "random", "truncated")}), several)
    parts = [{p.prompt_id for p in part} for part in vars(splits).values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 4
    assert [len(part) for part in vars(splits).values()] == [6, 3, 3, 0]  # for 2 and 3 requested
    assert all_ids(splits) == ids(several)


def labelled_file(folder: Path, rows: list[dict[str, str]]) -> str:
    path = folder / "ours.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def labelled_row(id_: str, instruction: str) -> dict[str, str]:
    texts = {"instruction": instruction, "response_a": "Yes.", "response_b": "No."}
    return {"id": id_, "label": "A", **texts}


def test_labelled_pairs_are_halved_by_instruction(make_config: MakeConfig, tmp_path: Path) -> None:
    rows = [labelled_row(f"o{i}-{k}", f"Question {i}?") for i in range(7) for k in range(3)]
    config = make_config(labelled_pairs=labelled_file(tmp_path, rows))
    splits = split(config, PAIRS)
    assert len(splits.test) == 3
    assert len(splits.train) == 9  # validation pairs are not taken from ours
    halves = [{p.instruction for p in part} for part in (splits.validation, splits.labelled)]
    assert [len(half) for half in halves] == [4, 3]
    assert not halves[0] & halves[1]
    assert all_ids(splits) == sorted([*ids(PAIRS), *(row["id"] for row in rows)])


def test_labelled_pairs_with_the_ids_of_made_ones_are_refused(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    rows = [labelled_row("p03", "Another question?"), labelled_row("x", "And a third?")]
    config = make_config(labelled_pairs=labelled_file(tmp_path, rows))
    with raises("data_invalid", "ours.jsonl", "'p03'"):
        split(config, PAIRS)


@pytest.mark.parametrize("one", PAIRS[:4], ids=lambda p: p.label)
def test_both_orders_show_both_responses_and_the_same_winner(one: Comparison) -> None:
    given, swapped = (one.shown(order) for order in ORDERS)
    assert given == swapped[::-1] == (one.response_a, one.response_b)
    for order in ORDERS:
        (first, second), verdict = one.shown(order), one.correct_verdict(order)
        assert (first if verdict == "A" else second) == one.chosen
        assert (second if verdict == "A" else first) == one.rejected


# ---- instructions that are divided before pairs are made ----


def ring(seen: list[list[str]], refused: frozenset[str] = frozenset()):
    """Returns a `build` whose worse response is the answer to the next instruction of the part."""

    def build(part: Part, ids: Sequence[str]) -> list[Comparison]:
        seen.append(list(ids))
        others = [*ids[1:], *ids[:1]]
        return [
            Comparison(
                id=id_,
                prompt_id=id_,
                instruction=id_,
                response_a=f"Answer to {id_}.",
                response_b=f"Answer to {other}.",
                label="A",
            )
            for id_, other in zip(ids, others, strict=True)
            if id_ not in refused and id_ != other
        ]

    return build


IDS = [f"i{number:02d}" for number in range(20)]


def test_no_response_of_a_held_out_pair_occurs_in_a_training_pair(make_config: MakeConfig) -> None:
    sizes = HeldOut(test=3, validation=2)
    parts = build_within_parts(0, IDS, sizes, ring([]), pairs_per_instruction=1)
    texts = {name: {t for p in part for t in p.shown("as_given")} for name, part in parts.items()}
    assert {name: len(part) for name, part in parts.items()} == {"test": 3, "validation": 2, "train": 15}
    assert not texts["train"] & (texts["test"] | texts["validation"])
    assert not texts["validation"] & texts["test"]
    assert all(p.metadata[PART] == name for name, part in parts.items() for p in part)
    pairs = [pair for part in parts.values() for pair in part]
    splits = split(make_config(), pairs)
    assert [len(part) for part in vars(splits).values()] == [15, 2, 3, 0]
    for name, part in parts.items():
        assert ids(getattr(splits, name)) == sorted(ids(part))


def test_parts_belong_to_the_seed_and_the_ids_not_to_their_order() -> None:
    sizes = HeldOut(test=3, validation=2)
    made = [
        {name: sorted(ids(part)) for name, part in parts.items()}
        for parts in (
            build_within_parts(seed, order, sizes, ring([]), pairs_per_instruction=1)
            for seed, order in ((0, IDS), (0, IDS[::-1]), (1, IDS))
        )
    ]
    assert made[0] == made[1] != made[2]


def test_a_part_grows_until_it_has_enough_pairs() -> None:
    whole = build_within_parts(0, IDS, HeldOut(test=4, validation=0), ring([]), pairs_per_instruction=1)
    refused = frozenset(ids(whole["test"])[:3])
    seen: list[list[str]] = []
    parts = build_within_parts(
        0, IDS, HeldOut(test=4, validation=0), ring(seen, refused), pairs_per_instruction=1
    )
    assert (len(parts["test"]), len(parts["validation"]), len(parts["train"])) == (4, 0, 13)
    assert [len(group) for group in seen] == [4, 7, 0, 13]


def test_a_single_instruction_is_never_a_part() -> None:
    sizes = HeldOut(test=1, validation=1)
    parts = build_within_parts(0, IDS, sizes, ring([]), pairs_per_instruction=4)
    assert {name: len(part) for name, part in parts.items()} == {"test": 2, "validation": 2, "train": 16}


def test_labelled_pairs_are_checked_before_pairs_are_made(make_config: MakeConfig, tmp_path: Path) -> None:
    instructions = [Instruction(id="i1", text="Why?", source="s")]
    for id_, mode in (("i1", "nearest"), ("i1.nearest", ("nearest", "random"))):
        path = labelled_file(tmp_path, [labelled_row(id_, "One?"), labelled_row("x", "Two?")])
        config = make_config(labelled_pairs=path, pairs={"mode": mode})
        with raises("data_invalid", "ours.jsonl", repr(id_)):
            check_labelled_pairs(config, instructions)
        check_labelled_pairs(config, [])
    with raises("file_not_found", "absent.jsonl"):
        check_labelled_pairs(make_config(labelled_pairs=str(tmp_path / "absent.jsonl")), [])


@pytest.mark.parametrize("divided", [False, True])
def test_pairs_on_disk_are_divided_alike_and_stay_there(tmp_path: Path, divided: bool) -> None:
    made = [
        Comparison(
            id=f"{i}.{kind}",
            prompt_id=f"i{i}",
            instruction="x",
            response_a="a",
            response_b="b",
            label="A",
            metadata={PART: ("train", "test", "validation")[i % 3]} if divided else {},
        )
        for i in range(12)
        for kind in ("nearest", "random")
    ]
    records = RecordSet(epath.Path(tmp_path), Comparison, {})
    for pair in made:
        records.add(pair.id, [pair])
    records.finish([pair.id for pair in made], {})
    expected = split_pairs(3, made, HeldOut(test=3, validation=2), "")
    found = split_pairs(
        3, IndexedRecords(epath.Path(tmp_path), Comparison), HeldOut(test=3, validation=2), ""
    )
    assert isinstance(found.train, PickedRecords)
    assert list(found.train) == expected.train
    assert (found.validation, found.test, found.labelled) == (expected.validation, expected.test, [])
