"""Prints what a run would do: `ste run --dry_run`."""

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ste_jax.data.header import shown
from ste_jax.report.formats import duration
from ste_jax.visible import visible, visible_cell

if TYPE_CHECKING:
    from ste_jax.config import RunConfig
    from ste_jax.dry_run import Cost, Inputs
    from ste_jax.stages.context import Context


def print_dry_run(context: "Context", topology: str) -> None:
    """Prints what the run would read and show to the judge, then what it would make and cost."""
    from ste_jax.dry_run import cost_of, read_inputs

    inputs, console = read_inputs(context), Console()
    _print_inputs(context.config, inputs, console)
    if not topology:
        print("A probe of the speed follows, which takes about a minute on a CPU.", flush=True)
    found = cost_of(context, inputs.kept, topology)
    console.print(_work(found, context.config.iterations))
    if found.speed is not None:
        read, new = (1 / max(s, 1e-9) for s in (found.speed.read_seconds, found.speed.new_seconds))
        print(
            f"measured: {read:,.0f} tokens read and {new:,.0f} generated per second. Loading, compiling and "
            "saving are not included; a training step is taken as four readings of its tokens."
        )
    if found.hours:
        console.print(_hours(found, topology))
    print("Nothing was written.")


def _print_inputs(config: "RunConfig", inputs: "Inputs", console: Console) -> None:
    console.print(_funnel(config.instructions, inputs))
    if inputs.columns_left_out:
        print(f"columns that are not read: {shown(inputs.columns_left_out)}")
    if config.labelled_pairs:
        chosen, tested = inputs.labelled
        print(f"labelled pairs: {chosen} choose checkpoints, every model is tested on {tested}")
    print(f"\njudge prompt of the first instruction, {inputs.prompt_tokens} tokens:\n")
    print(visible(inputs.prompt).strip())
    print()


def _table(title: str, *headers: str) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column(headers[0], no_wrap=True)
    for header in headers[1:]:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _funnel(source: str, found: "Inputs") -> Table:
    table = _table(f"instructions of {visible_cell(source)}", "step", "removed", "left")
    table.add_row("read", "", f"{found.read:,}")
    for step in found.funnel:
        table.add_row(step.name, f"{step.removed:,}", f"{step.left:,}")
    table.add_row("selected, at most", "", f"{found.selected:,}")
    return table


def _work(found: "Cost", iterations: int) -> Table:
    """Returns the table of the stages: their calls or steps, and their expected time."""
    table = _table(
        f"{found.work.pairs:,} pairs to train on, at most",
        *("stage", "prompts or steps", "samples", "tokens read", "new tokens", "time"),
    )
    total = 0.0
    for calls in found.work.calls:
        seconds = found.seconds_of(calls, iterations)
        total += seconds or 0.0
        new = calls.prompts * calls.samples * calls.new_tokens
        numbers = (calls.prompts, calls.samples, calls.prompts * calls.prompt_tokens, new)
        table.add_row(calls.stage, *(f"{n:,}" for n in numbers), _time(seconds))
    for training in found.work.trainings:
        seconds = found.seconds_of(training, iterations)
        total += seconds or 0.0
        tokens = training.settings.batch_rows * training.settings.row_length * training.steps * iterations
        steps = f"{training.steps * iterations:,}"
        table.add_row(training.stage, steps, "", f"{tokens:,}", "", _time(seconds))
    table.add_row("total", "", "", "", "", _time(total if found.speed else None))
    return table


def _time(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def _hours(found: "Cost", topology: str) -> Table:
    table = _table(f"expected on {topology} (nothing is compiled; ste plan does it)", "stage", "chip-hours")
    for stage in found.hours:
        table.add_row(stage.stage, f"{stage.chip_hours:,.1f}")
    table.add_row("total", f"{sum(stage.chip_hours for stage in found.hours):,.1f}")
    return table
