import io

from rich.console import Console

from ste_jax.plan.table import render_plan


def test_square_brackets_of_names_are_no_markup() -> None:
    report = {
        "config": "mine [/b]",
        "model": "runs/[red]/model",
        "topology": "v5e-4",
        "chips": 4,
        "devices": 4,
        "phases": {},
        "stages": [],
    }
    text = io.StringIO()
    render_plan(Console(file=text, width=100), report)
    assert text.getvalue().startswith("mine [/b] (runs/[red]/model) on v5e-4: 4 chips, 4 devices\n")
