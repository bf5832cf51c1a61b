import json

import pytest

from ste_jax.training.metrics import FILE, MetricsLog, read_metrics
from tests.errors import raises


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    log = MetricsLog(tmp_path)
    log.begin(0)
    for step in (1, 2, 3):
        log.log(step, loss=1.0 / step)
    log.log(2, evaluation=0.5)
    log.close()
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 4, "lo')  # killed while it wrote
    log = MetricsLog(tmp_path)
    log.begin(2)
    log.log(3, loss=0.25)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert lines == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 0.5},
        {"step": 2, "evaluation": 0.5},
        {"step": 3, "loss": 0.25},
    ]
    assert read_metrics(tmp_path) == lines
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_an_interrupted_evaluation_is_logged_once(tmp_path):
    log = MetricsLog(tmp_path)
    log.begin(0)
    log.log(1, loss=1.0)
    log.log(1, evaluation=0.5)
    log.close()
    log = MetricsLog(tmp_path)
    log.begin(1, evaluated=False)
    log.log(1, evaluation=0.25)
    log.close()
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 1, "evaluation": 0.25}]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / FILE).write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with raises("data_invalid", "metrics.jsonl, line 2"):
        MetricsLog(tmp_path).begin(3)


def test_logging_before_begin_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="begin"):
        MetricsLog(tmp_path).log(1, loss=1.0)
