import pytest

from ste_jax.report import formats


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (742.8, "12 min 23 s")),
        *((3599.7, "1 h 00 min"), (3_700, "1 h 02 min"), (400_000, "111 h 07 min")),
    ],
)
def test_duration(seconds, text):
    assert formats.duration(seconds) == text


def test_numbers():
    assert formats.percent(0.6667) == "66.7%"
    assert formats.percent(None) == "–"
    assert formats.interval([0.5254, 0.7832]) == "52.5–78.3%"
    assert formats.count(308730) == "308,730"
    assert formats.signed(-0.84) == "−0.8"
    assert formats.p_value(0.0501) == "p = 0.050"
