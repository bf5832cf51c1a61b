import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ste_jax.config import RunConfig
from ste_jax.pairs.splits import Splits, split
from ste_jax.records import ORDERS, Comparison

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
    with pytest.raises(ValueError, match=rf"pairs: {count} pairs were made, all .* raise select\.size"):
        split(make_config(), PAIRS[:count])


def test_the_pairs_of_an_instruction_stay_together(make_config: MakeConfig) -> None:
    several = [dataclasses.replace(pair(i), prompt_id=f"i{i // 3}") for i in range(12)]
    splits = split(make_config(pairs={"mode": ("nearest", "random", "truncated")}), several)
    parts = [{p.prompt_id for p in part} for part in vars(splits).values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 4
    assert [len(part) for part in vars(splits).values()] == [6, 3, 3, 0]  # of 2 and 3 that were asked for
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
    with pytest.raises(ValueError, match=r"ours\.jsonl: the id 'p03' is that of an instruction"):
        split(config, PAIRS)


@pytest.mark.parametrize("one", PAIRS[:4], ids=lambda p: p.label)
def test_both_orders_show_both_responses_and_the_same_winner(one: Comparison) -> None:
    given, swapped = (one.shown(order) for order in ORDERS)
    assert given == swapped[::-1] == (one.response_a, one.response_b)
    for order in ORDERS:
        (first, second), verdict = one.shown(order), one.correct_verdict(order)
        assert (first if verdict == "A" else second) == one.chosen
        assert (second if verdict == "A" else first) == one.rejected
