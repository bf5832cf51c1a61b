import dataclasses
import json

import pytest

from ste_jax.checkpoint.card import ModelCard
from ste_jax.models.presets import PRESETS

CARD = ModelCard(
    name="judge 1",
    architecture=PRESETS["llama3.1_8b"],
    tokenizer_hash="0" * 64,
    stop_ids=(128001, 128009),
    parent="1" * 64,
    weights_hash="2" * 64,
    judge_prompt={"name": "pairwise", "system": "s", "user": "u", "rubric": ""},
    parser="last_verdict",
)


def test_round_trip_through_json_text() -> None:
    assert ModelCard.from_json(json.loads(json.dumps(CARD.to_json()))) == CARD
    seed = dataclasses.replace(CARD, parent=None, judge_prompt=None, parser=None)
    assert ModelCard.from_json(json.loads(json.dumps(seed.to_json()))) == seed


def test_odd_cards_are_refused() -> None:
    value = CARD.to_json()
    with pytest.raises(ValueError, match=r"fields \['parser'\] are missing or unknown"):
        ModelCard.from_json({k: v for k, v in value.items() if k != "parser"})
    with pytest.raises(ValueError, match=r"fields \['colour'\]"):
        ModelCard.from_json(value | {"colour": "red"})
    with pytest.raises(ValueError, match="field architecture"):
        ModelCard.from_json(value | {"architecture": {"vocab_size": 3}})
    with pytest.raises(ValueError, match="field architecture"):
        ModelCard.from_json(value | {"architecture": None})
