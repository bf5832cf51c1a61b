"""Tables of the numbers of a result, and of the comparison of two."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ste_jax.report.formats import NOTHING, count, interval, p_value, percent
from ste_jax.visible import visible_cell

_BALANCES = {"verdicts": "length-balanced accuracy", "pooled": "length-balanced, orders pooled"}
_DIFFERENCES = {
    "accuracy": "difference",
    "accuracy, orders pooled": "difference_pooled",
    "length-balanced, orders pooled": "difference_length_balanced",
}
_GROUPS = {"subsets": "", "categories": "", "lengths": "characters "}


def tables(report: dict[str, Any]) -> Group:
    """Returns the tables of `numbers`."""
    parts: list[Table | Text] = [_headline(report), _groups(report), _biases(report), _ratios(report)]
    if report["votes"]:
        curve = report["votes"]["curve"]
        shown = [k for k in (1, 3, 5, 9, 15, 32) if k < len(curve)] + [len(curve)]
        parts.append(_text("votes: " + "  ".join(f"{k}: {percent(curve[k - 1])}" for k in shown)))
    if scores := list(_leaves(report["own_scores"] or {})):
        parts.append(_own_scores(report["benchmark"], scores))
    parts.append(_panel(report["shortcuts"]))
    parts += map(_text, _remarks(report))
    return Group(*parts)


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=_text(title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    table.add_column(_text(columns[0]))
    for column in columns[1:]:
        table.add_column(_text(column), justify="right")
    return table


def _text(value: str) -> Text:
    """Returns text that may hold names from data and results, without control characters."""
    # Text, not str: rich would read square brackets as markup.
    return Text(visible_cell(value))


def _add(table: Table, *cells: str) -> None:
    table.add_row(*map(_text, cells))


def _headline(report: dict[str, Any]) -> Table:
    table = _table(f"{report['model']} on {report['benchmark']}", "", "share", "95% interval", "kappa")
    _add(table, "accuracy", percent(report["accuracy"]), interval(report["interval95"]))
    _add(table, "  as given", percent(report["accuracy_as_given"]))
    _add(table, "  swapped", percent(report["accuracy_swapped"]))
    pooled = report["accuracy_pooled"]
    _add(table, "accuracy, orders pooled", percent(pooled), interval(report["pooled_interval95"]))
    _add(table, "  better one first", percent(report["accuracy_better_first"]))
    _add(table, "  better one second", percent(report["accuracy_better_second"]))
    consistent = report["consistent_accuracy"]
    _add(table, "right in both orders", percent(consistent), interval(report["consistent_interval95"]))
    flips = report["shortcuts"]["order_flips"]
    _add(table, "flips with the order", percent(flips["share"]), interval(flips["interval95"]))
    for name, title in _BALANCES.items():
        row = report["shortcuts"]["length_balance"][name]
        _add(table, title, percent(row["accuracy"]), interval(row["interval95"]))
        for kind in ("longer", "shorter"):
            _add(table, f"  better one {kind}", percent(row[kind]["accuracy"]))
    if calibrated := report["length_calibration"]:
        _calibrated(table, calibrated)
    _add(table, "verdicts forced", percent(report["forced"]))
    for name, value in report["agreement"].items():
        kappa = NOTHING if value["kappa"] is None else f"{value['kappa']:.2f}"
        shares = (percent(value["agreement"]), interval(value["interval95"]))
        _add(table, f"agreement: {name.replace('_', ' ')}", *shares, kappa)
    return table


def _calibrated(table: Table, row: dict[str, Any]) -> None:
    share, balance = percent(row["accuracy_pooled"]), row["length_balance"]
    _add(table, "pooled, without length", share, interval(row["pooled_interval95"]))
    _add(table, "  length-balanced", percent(balance["accuracy"]), interval(balance["interval95"]))


def _ratios(report: dict[str, Any]) -> Table:
    table = _table("", "length, better : worse", "pairs", "pooled", "95% interval")
    for row in report["shortcuts"]["length_ratios"]:
        low, high = row["ratio"]
        shares = (percent(row["accuracy"]), interval(row["interval95"]))
        _add(table, f"{low:.2f} to {high:.2f}", count(row["n"]), *shares)
    return table


def _panel(shortcuts: dict[str, Any]) -> Table:
    panel, probes = shortcuts["panel"], shortcuts["probes"]
    title = "What the judge decides by" + (f" (probes of {count(probes['pairs'])} pairs)" if probes else "")
    table = Table(title=_text(title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column()
    table.add_column(_text("share"), justify="right")
    table.add_column(_text("95% interval"), justify="right")
    table.add_column()
    for line in panel["lines"]:
        mark = "! " if line["warning"] else "  "
        shares = (percent(line["share"]), interval(line["interval95"]))
        _add(table, mark + line["name"].replace("_", " "), *shares, line["text"])
    table.caption, table.caption_justify = _text(panel["summary"]), "left"
    return table


def _groups(report: dict[str, Any]) -> Table:
    names = ("pairs", "accuracy", "95% interval", "pooled", "balanced", "both orders", "flips", "first")
    table = _table("", "", *names)
    for kind, prefix in _GROUPS.items():
        for name, row in report[kind].items():
            _add(table, prefix + name, count(row["n"]), *_shares(row))
    for name, row in report["baselines"].items():
        _add(
            table,
            name.replace("_", " "),
            "",
            percent(row["accuracy"]),
            "",
            "",
            "",
            percent(row["consistent_accuracy"]),
        )
    return table


def _shares(row: dict[str, Any]) -> Sequence[str]:
    bounds = interval(row["interval95"])
    names = ("accuracy_pooled", "length_balanced", "consistent_accuracy", "flip_rate", "first_preference")
    rest = (percent(row[name]) for name in names)
    return percent(row["accuracy"]), bounds, *rest


def _biases(report: dict[str, Any]) -> Table:
    table = _table("", "prefers", "pairs", "judge", "95% interval", "label")
    for name, row in report["bias"].items():
        _add(
            table,
            name,
            count(row["n"]),
            percent(row["judge"]),
            interval(row["interval95"]),
            percent(row["label"]),
        )
    return table


def _own_scores(benchmark: str, scores: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    """Returns every accuracy among a benchmark's own scores, and what is missing for it."""
    table = _table(f"{benchmark}: its own scores", "", "share", "95% interval", "missing")
    for name, row in scores:
        share = row.get("accuracy", row.get("agreement"))
        missing = ", ".join(row.get("missing", []))
        _add(table, name.replace("_", " "), percent(share), interval(row.get("interval95")), missing)
    return table


def _leaves(scores: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in scores.items():
        if isinstance(value, dict):
            if "accuracy" in value or "kappa" in value:
                yield prefix + name, value
            else:
                yield from _leaves(value, f"{prefix}{name} ")


def _remarks(report: dict[str, Any]) -> list[str]:
    lines = [f"{report['n']} pairs and {report['ties']} ties; {report['policy']['text']}"]
    votes = report["votes"] or {}
    for what, unparsed in (("judgments", report["unparsed"]), ("samples", votes.get("unparsed_samples"))):
        if unparsed:
            reasons = ", ".join(f"{reason} {n}" for reason, n in unparsed.items())
            lines.append(f"{what} without a verdict: {reasons}")
    own = report["own_scores"] or {}
    if own.get("missing_subsets"):
        lines.append(f"subsets that are missing: {', '.join(own['missing_subsets'])}")
    if own.get("incomplete_prompts"):
        lines.append(f"prompts not wholly judged, in no own score: {own['incomplete_prompts']}")
    if own.get("surplus_subsets"):
        surplus = ", ".join(f"{name} {counts}" for name, counts in own["surplus_subsets"].items())
        lines.append(f"subsets with more records than were published: {surplus}")
    if own.get("short_subsets"):
        lines.append(f"subsets not whole: {', '.join(f'{k} {v}' for k, v in own['short_subsets'].items())}")
    if calibrated := report["length_calibration"]:
        low, high = calibrated["coefficient_interval95"] or (0.0, 0.0)
        lines.append(
            f"coefficient of the log ratio of lengths: {calibrated['coefficient']:+.2f} ({low:+.2f} to "
            f"{high:+.2f}), fitted on {calibrated['n']} pairs without their labels"
        )
    lines += _notes(report["notes"])
    if report["too_long"]:
        lines.append(f"{report['too_long']} comparisons do not fit the model and were not judged")
    return [*lines, f"result: {report['result']}"]


def _notes(notes: dict[str, Any]) -> Iterator[str]:
    """Yields a line about each thing that was left out of the data or changed in it."""
    for name, value in notes.items():
        if value:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{name.replace('_', ' ')}: {shown}"


def comparison_table(report: dict[str, Any]) -> Group:
    """Returns the table of `compare.compare`."""
    table = _table(
        f"B: {report['b']['model']} against A: {report['a']['model']}",
        *("", "A right", "B right", "A right, B wrong", "B right, A wrong", "McNemar"),
    )
    for name, row in report["mcnemar"].items():
        shares = (percent(row["right_a"]), percent(row["right_b"]))
        counts = (count(row["only_a"]), count(row["only_b"]))
        _add(table, name.replace("_", " "), *shares, *counts, p_value(row["p_value"]))
    differences = [
        _difference(name, report[key])
        for name, key in _DIFFERENCES.items()
        if report[key]["accuracy"] is not None
    ]
    left = report["only_in_a"] + report["only_in_b"]
    remarks = [f"{report['n']} comparisons that both judged; {report['policy']['text']}"]
    if report["prompts"] < report["n"]:
        remarks.append(
            f"{report['prompts']} prompts: McNemar's test treats comparisons of one prompt as independent, "
            "the sign-flip test does not"
        )
    changed = report["changed_decisions"]
    if changed["n"]:
        remarks.append(
            f"{percent(changed['share'])} of the pooled decisions differ (95% interval "
            f"{interval(changed['interval95'])}): {changed['to_right']} became right and "
            f"{changed['to_wrong']} wrong"
        )
    remarks += [f"{left} comparisons were judged by only one of them and are left out"] if left else []
    if differs := report["settings_differ"]:
        remarks.append(f"settings differ: {', '.join(differs).replace('_', ' ')}")
    return Group(table, *map(_text, differences), *map(_text, remarks))


def _difference(name: str, paired: dict[str, Any]) -> str:
    """Returns one line about the difference of two accuracies."""
    spread = "no interval, since all comparisons differ alike"
    if paired["interval95"]:
        low, high = paired["interval95"]
        spread = f"95% interval {100 * low:+.1f} to {100 * high:+.1f} (bootstrap over prompts)"
    test = f"; sign-flip test {p_value(paired['p_value'])}" if "p_value" in paired else ""
    return (
        f"{name}: {percent(paired['accuracy_a'])} and {percent(paired['accuracy_b'])}, B - A: "
        f"{100 * paired['accuracy']:+.1f} points, {spread}{test}"
    )
