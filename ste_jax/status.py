"""Progress of a run, read from its workdir alone: what is finished, what is left, and the speed."""

from etils import epath
from rich import box
from rich.table import Table
from rich.text import Text

from ste_jax.storage.record_set import STARTED, read_work
from ste_jax.storage.success import read_success
from ste_jax.visible import visible_cell


def render_status(workdir: epath.Path, folders: list[str]) -> Table:
    """Returns the table of `ste status`: a row for each stage and for each set of model calls inside it."""
    # Text, not str: rich would read square brackets as markup.
    # Without lines between columns, names and numbers stay whole on a terminal of 80 columns.
    table = Table(
        title=Text(visible_cell(str(workdir))),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    table.add_column("stage", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("done", "time", "time\nleft", "tokens\nread", "tokens\nnew", "new\nper s"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in folders:
        table.add_row(*map(Text, _row(workdir / name, name)))
        for inner in sorted((workdir / name).iterdir()) if (workdir / name).exists() else []:
            if (inner / STARTED).exists():
                table.add_row(*map(Text, _row(inner, f"  {visible_cell(inner.name)}")))
    return table


def _row(folder: epath.Path, label: str) -> list[str]:
    work, success = read_work(folder), read_success(folder)
    state = "finished" if success else "started" if (folder / STARTED).exists() else "pending"
    if state == "pending":
        return [label, state] + [""] * 6
    done = success.count if success else work.done
    left = 0 if success else max(0, work.total - work.done)
    speed = f"{work.generated_tokens / work.seconds:.0f}" if work.generated_tokens and work.seconds else ""
    remaining = _duration(work.seconds / done * left) if done and left else ""
    tokens = map(_rounded, (work.prompt_tokens, work.generated_tokens))
    counts = f"{done:,}/{done + left:,}" if left else f"{done:,}"
    return [label, state, counts, _duration(work.seconds), remaining, *tokens, speed]


def _rounded(count: int) -> str:
    """Returns a number with at most four characters, such as "812", "91k" or "1.2M"."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}" if count < 10 * size else f"{count / size:.0f}{unit}"
    return str(count)


def _duration(seconds: float) -> str:
    """Returns hours, minutes and seconds, such as "1:02:03" or "2:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
