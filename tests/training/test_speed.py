import logging

import jax
import pytest

from ste_jax.sharding import make_mesh
from ste_jax.training.speed import log_step, utilization


def test_utilization_of_a_device_at_half_its_peak() -> None:
    # 6 FLOPs for each of 1e9 parameters and 1e4 tokens a second are 6e13 FLOP/s, on two devices of 6e13 each.
    assert utilization(10**9, 1e4, 2, 6e13) == pytest.approx(0.5)


def test_a_step_is_logged_without_mfu_where_the_peak_is_unknown(caplog: pytest.LogCaptureFixture) -> None:
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    with caplog.at_level(logging.INFO, logger="ste_jax"):
        log_step(3, 10, tokens=500, seconds=2.0, parameters=1000, mesh=mesh)
    assert caplog.messages == ["step 3 of 10: 2.00 s, 250 tokens/s"]
