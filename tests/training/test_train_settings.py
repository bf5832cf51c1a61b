import pytest

from tests.errors import raises
from tests.training.training_cases import settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("final_learning_rate_ratio", 1.5),
        ("warmup_steps", -1),
        ("epochs", 0),
        ("batch_rows", 0),
        ("micro_rows", 0),
        ("row_length", 1),
        ("b1", 1.0),
        ("b2", -0.1),
        ("weight_decay", -1.0),
        ("clip_norm", 0.0),
        ("param_dtype", "float16"),
        ("dtype", "int8"),
        ("moment_dtype", "f32"),
        ("attention", "flash"),
        ("remat", "some"),
        ("optimizer", "adam"),
        ("schedule", "step"),
        ("patience", -1),
        ("lora_rank", -1),
        ("lora_alpha", 0.0),
        ("loss_chunk", 0),
        ("evaluate_every", -1),
        ("checkpoint_every", 0),
        ("keep_checkpoints", 0),
    ],
)
def test_a_bad_value_is_refused_by_name(field, value):
    with raises("config_invalid", f"train: {field} "):
        settings(**{field: value})


def test_micro_rows_must_divide_the_batch():
    with raises("config_invalid", "batch_rows 8", "micro_rows 3"):
        settings(micro_rows=3)


def test_second_moments_that_bfloat16_would_freeze_are_refused():
    """A value that changes by at most (1 - b2) of itself is rounded back in bfloat16."""
    with raises("config_invalid", "param_dtype", "b2", "0.999"):
        settings(param_dtype="bfloat16", b2=0.999)
    settings(param_dtype="bfloat16", b2=0.99)
    settings(param_dtype="bfloat16", b2=0.999, optimizer="lion")
    settings(param_dtype="float32", moment_dtype="bfloat16", b2=0.999)


def test_micro_batches():
    assert settings(batch_rows=8, micro_rows=2).micro_batches == 4
