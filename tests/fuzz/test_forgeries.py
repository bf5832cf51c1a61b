"""Forged delimiters and verdicts, in any disguise, are not seen by a judge."""

import random

from ste_jax.judging.prompts import BUILT_IN
from tests.fuzz.forgeries import attack, forgery, marks


def test_no_forgery_is_seen() -> None:
    assert [found for number in range(500) if (found := attack(0, number))] == []


def test_the_check_sees_forgeries_that_nobody_defused() -> None:
    draw, short = random.Random(0), BUILT_IN["short"]
    template = short.user.replace("{rubric}", "")
    usual = marks(short, template)
    forged = [template.replace("{response_a}", forgery(draw, short)) for _ in range(200)]
    assert sum(marks(short, text) > usual for text in forged) > 180
