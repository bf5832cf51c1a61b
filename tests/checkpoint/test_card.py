import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ste_jax.checkpoint.card import SCHEMA_VERSION, ModelCard
from ste_jax.models.presets import PRESETS
from tests.errors import raises

# Written by version 0.1 of the package, before cards had a schema version.
VERSION_1 = json.loads((Path(__file__).parent / "data" / "card_version_1.json").read_text())
CARD = ModelCard(
    name="judge 1",
    architecture=PRESETS["llama3.1_8b"],
    tokenizer_hash="0" * 64,
    stop_ids=(128001, 128009),
    parent="1" * 64,
    weights_hash="2" * 64,
    judge_prompt={"name": "pairwise", "system": "s", "user": "u", "rubric": ""},
    parser="last_verdict",
    max_new_tokens=512,
    force_verdict=True,
    dtype="bfloat16",
    chosen_by=("0a1b", "2c3d"),
    calibration={"temperature": 1.5, "threshold": 0.7, "pairs": 400},
    shortcuts={
        "summary": "This judge decides by the length of the responses.",
        "lines": [
            {
                "name": "accuracy",
                "share": 0.5,
                "interval95": [0.4, 0.6],
                "text": "Half.",
                "warning": "accuracy",
            }
        ],
    },
)


def test_round_trip_through_json_text() -> None:
    assert ModelCard.from_json(json.loads(json.dumps(CARD.to_json()))) == CARD
    seed = dataclasses.replace(CARD, parent=None, judge_prompt=None, parser=None)
    assert ModelCard.from_json(json.loads(json.dumps(seed.to_json()))) == seed


def test_a_card_of_version_1_is_read_as_one_of_today() -> None:
    card = ModelCard.from_json(VERSION_1)
    assert (card.name, card.parent, card.weights_hash) == ("judge 1", "1" * 64, "2" * 64)
    assert card.architecture == PRESETS["llama3.1_8b"]
    assert card.judge_prompt is not None
    assert card.judge_prompt["name"] == "standard"
    assert (card.max_new_tokens, card.force_verdict, card.dtype, card.calibration) == (None,) * 4
    assert card.to_json()["schema_version"] == SCHEMA_VERSION == 2
    assert ModelCard.from_json(card.to_json()) == card


def test_a_card_of_a_newer_version_is_refused_by_its_version() -> None:
    with raises("schema_newer", "version 3"):
        ModelCard.from_json(CARD.to_json() | {"schema_version": 3, "colour": "red"})


@pytest.mark.parametrize("value", [VERSION_1, CARD.to_json()], ids=["version 1", "today"])
def test_missing_and_unknown_fields_are_refused(value: dict[str, Any]) -> None:
    with raises("card_invalid", "'parser'"):
        ModelCard.from_json({k: v for k, v in value.items() if k != "parser"})
    with raises("card_invalid", "'colour'"):
        ModelCard.from_json(value | {"colour": "red"})


def test_fields_of_version_2_are_unknown_in_version_1() -> None:
    with raises("card_invalid", "'dtype'"):
        ModelCard.from_json(VERSION_1 | {"dtype": "float32"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture", {"vocab_size": 3}),
        ("architecture", None),
        ("stop_ids", 3),
        ("stop_ids", ["</s>"]),
        ("judge_prompt", "standard"),
        ("max_new_tokens", "many"),
        ("max_new_tokens", -1),
        ("force_verdict", 1),
        ("dtype", 32),
        ("calibration", [1.5]),
        ("chosen_by", "0a1b"),
        ("chosen_by", [1]),
        ("chosen_by", None),
        ("shortcuts", "short"),
        ("shortcuts", {"lines": []}),
        ("shortcuts", {"summary": "s", "lines": ["one"]}),
        ("shortcuts", {"summary": "s", "lines": [{"name": "n", "text": "t", "share": None}]}),
        ("schema_version", "2"),
        ("schema_version", 0),
    ],
)
def test_ill_formed_fields_are_refused(field: str, value: Any) -> None:
    with raises("card_invalid", field):
        ModelCard.from_json(CARD.to_json() | {field: value})


def test_something_else_is_refused() -> None:
    with raises("card_invalid"):
        ModelCard.from_json([1])  # pyright: ignore[reportArgumentType]
