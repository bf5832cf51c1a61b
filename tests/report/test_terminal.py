import io

from rich.console import Console

from ste_jax.report.terminal import render_terminal_table


def _printed(summary, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(render_terminal_table(summary))
    return console.file.getvalue()


def test_rows_fit_eighty_columns_uncut(summary):
    text = _printed(summary)
    assert "…" not in text
    seed, *_, last = [line.split() for line in text.splitlines() if "[" in line and "interval" not in line]
    assert seed == ["seed", "50.0", "[36.4–63.6]", "50.0", "50.0", "8.3", "83.3", "14.6"]
    shares = ["66.7", "[52.5–78.3]", "70.8", "62.5", "45.8", "41.7", "41.7"]
    assert last == ["3", *shares, "480", "478", "74"]
    assert "No significant gain over the seed (+16.7 points, p = 0.36)." in text


def test_paper_scale_counts_fit(summary):
    summary["models"][-1].update(judgments=308_730, parsed=305_112, kept=17_204)
    text = _printed(summary)
    assert "308,730" in text
    assert "17,204" in text


def test_markup_in_the_title_stays_text(summary):
    summary["title"] = "[bold red]run[/] [link=x]"
    assert "[bold red]run[/] [link=x]: 24 constructed pairs" in _printed(summary)


def test_shares_of_nothing_are_dashes(summary):
    summary["models"] = [model | {"flip_rate": None, "first_preference": None} for model in summary["models"]]
    seed = next(line for line in _printed(summary).splitlines() if line.startswith("seed"))
    assert seed.split()[-2:] == ["–", "–"]


def test_no_models_yet(summary):
    summary["models"] = []
    assert "No model has been evaluated yet." in _printed(summary)


def test_judgments_without_a_wrong_one_are_counted(summary):
    summary["training"][1] |= {"method": "dpo", "without_wrong": 1234}
    text = " ".join(_printed(summary).split())
    assert "(+16.7 points, p = 0.36). Iteration 2: 1,234 selected judgments have no wrong judgment" in text
    summary["training"][1]["unbalanced"] = 56
    text = " ".join(_printed(summary).split())
    assert "no wrong judgment to pair with, 56 more were dropped to balance A and B." in text


def test_decisions_of_a_pointwise_judge_are_shown_by_kind(summary):
    summary |= {"objective": "pairwise", "pointwise": True}
    for model, share in zip(summary["models"], (0.5, 0.6, 0.7, 0.8), strict=True):
        model |= {
            "accuracy_pooled": share,
            "pooled_interval95": [share - 0.1, share + 0.1],
            "p_value_pooled_vs_seed": 0.001 if model["iteration"] else None,
            "kinds": {"garbled": {"accuracy_pooled": share}, "composite": {"accuracy_pooled": None}},
        }
    text = _printed(summary)
    seed, *_, last = [line.split() for line in text.splitlines() if "[" in line and "interval" not in line]
    assert seed == ["seed", "50.0", "[40.0–60.0]", *"–––––"]
    assert last[:3] == ["3", "80.0", "[70.0–90.0]"]
    assert "Significant gain over the seed (+30.0 points, p = 0.003)." in text
    assert "Decisions by kind of pairs: garbled 50.0 to 80.0, composite – to –." in text
