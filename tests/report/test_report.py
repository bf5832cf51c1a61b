import dataclasses
import re
from html.parser import HTMLParser

import matplotlib
import pytest
from etils import epath

from ste_jax.report.page import write_report
from ste_jax.report.plots import draw_figures

SECTIONS = (
    *(
        "headline",
        "accuracy",
        "bias",
        "shortcuts",
        "data",
        "pairs",
        "yield",
        "training",
        "cost",
        "judgments",
        "origin",
    ),
)
FIGURES = (
    *("accuracy", "consistency", "position", "length", "yield"),
    *("balance", "correct", "loss", "validation"),
)
HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}\" ' &amp; $x^2$"


class _Page(HTMLParser):
    """The elements of a page in order, each with the text directly in it."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def _write(summary, samples, folder):
    out = folder / "deep" / "report.html"
    write_report(summary, samples, out)
    return out.read_text("utf-8")


def test_pairs_of_all_kinds_can_be_shown(finished_run, tmp_path):
    """Pairs of certain kinds have no modified instruction, and neutral ones are ties."""
    summary, (first, *_) = finished_run
    pair = dataclasses.replace(first.pair, label="tie", metadata={"sources": ["one", "two"]})
    text = _write(summary, [dataclasses.replace(first, pair=pair)], tmp_path)
    assert text.count("<small>tie</small>") == 2
    assert "Modified instruction" not in text
    assert "Modified instruction" in _write(summary, [first], tmp_path)


@pytest.fixture(scope="module")
def written(finished_run, tmp_path_factory):
    return _write(*finished_run, tmp_path_factory.mktemp("report"))


def _spaced(text):
    return " ".join(text.split())


def test_page_has_every_section_and_figure(written):
    page = _Page(written)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert [name for name in ids if name in SECTIONS] == list(SECTIONS)
    assert len(page.all("figure")) == len(FIGURES)
    assert len(page.all("details")) == 10
    text = _spaced(page.text)
    assert "Best, iteration 3 66.7% 95% interval 52.5–78.3%" in text
    assert "No significant gain over the seed (+16.7 points, p = 0.36)." in text
    assert "9f2c41d07ab35e68" in text
    assert "The run took 12 min 23 s and at most 3.03 GiB of memory." in text


def test_the_panel_of_the_best_model_is_shown(written, summary, samples, tmp_path):
    text = _spaced(_Page(written).text)
    assert "Iteration 3, on the held-out pairs and on altered versions of 20 of them." in text
    assert "Do not use it for verdicts from one order only." in text
    assert "Its verdict changes with the order of the responses in 41.7% of the pairs." in text
    for name, numbers in (("order flips warning", "41.7%24.0–61.0%"), ("empty answer", "0.0%0.0–16.0%")):
        assert f"{name} {numbers}" in text
    assert text.count("warning") == 1
    assert "0.25 to 0.80" in text
    assert "50.0% 10.0–90.0%" in text
    assert text.count("57.5% 41.0–73.0%") == len(summary["models"])
    for model in summary["models"]:
        model["shortcuts"]["probes"] = None
    assert "altered versions" not in _write(summary | {"yields": [], "training": []}, samples, tmp_path)


def test_every_evaluated_checkpoint_is_told(written, finished_run):
    text = _spaced(_Page(written).text)
    assert "5: 50.0%, 10: 45.8%, 15: 54.2%, 20: 50.0%" in text
    for row in finished_run[0]["training"]:
        assert ", ".join(f"{e['step']}: {e['accuracy']:.1%}" for e in row["evaluations"]) in text


def test_a_run_that_stopped_early_says_so(summary, samples, tmp_path):
    first, second = summary["training"][:2]
    taken = len(first["steps"])
    first["planned_steps"], second["planned_steps"] = taken + 7, len(second["steps"])
    text = _spaced(_Page(_write(summary, samples, tmp_path)).text)
    assert text.count("stopped early") == 1
    assert f"of {taken + 7}: stopped early" in text


def test_ids_are_unique_and_references_resolve(written):
    elements = _Page(written).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:url\(|href=")#([^")]+)', written)
    assert len(used) > 50
    assert set(used) <= set(ids)


def test_page_is_self_contained(written):
    page = _Page(written)
    assert not page.all("script")
    references = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "action", "data")
    ]
    assert references
    assert all(value.startswith(("#", "data:,")) for value in references)
    assert "default-src 'none'" in next(m["content"] for m in page.all("meta") if "http-equiv" in m)


def test_page_is_accessible(written):
    page = _Page(written)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("scope") for attributes in page.all("th"))
    drawings = page.all("svg")
    assert len(drawings) == len(FIGURES)
    assert all(svg["role"] == "img" and re.search(r"\d", svg["aria-label"]) for svg in drawings)


def test_texts_of_others_stay_text(summary, samples, tmp_path):
    summary |= {"title": HOSTILE, "model": HOSTILE, "command": HOSTILE, "yields": [], "training": []}
    summary["categories"] = {HOSTILE: {"wanted": 1, "available": 1, "taken": 1}}
    summary["funnel"][1]["name"] = HOSTILE
    summary["pairs"] |= {"rejected": {HOSTILE: 1}, "mode": HOSTILE, "splits": {HOSTILE: 3}}
    summary["models"][0]["unparsed"] = {HOSTILE: 1}
    summary["versions"] = {HOSTILE: HOSTILE}
    summary["tokens"] = {HOSTILE: {"prompt": 1, "generated": 1}}
    first = samples[0]
    pair = dataclasses.replace(
        first.pair,
        instruction=HOSTILE,
        response_a=HOSTILE,
        response_b=HOSTILE,
        category=HOSTILE,
        metadata={"modified_instruction": HOSTILE},
    )
    judgment = dataclasses.replace(first.judgment, text=HOSTILE, status=HOSTILE)
    shown = dataclasses.replace(first, pair=pair, judgment=judgment)
    page = _Page(_write(summary, [shown], tmp_path))
    assert not page.all("script")
    assert not page.all("img")
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count(HOSTILE) >= 18


def test_responses_are_shown_in_the_order_of_the_judge(young_summary, samples, tmp_path):
    for order, first, label in (("as_given", "LEFT", "worse"), ("swapped", "RIGHT", "better")):
        pair = dataclasses.replace(samples[0].pair, response_a="LEFT", response_b="RIGHT", label="B")
        judgment = dataclasses.replace(samples[0].judgment, order=order)
        shown = dataclasses.replace(samples[0], pair=pair, judgment=judgment)
        text = _spaced(_Page(_write(young_summary, [shown], tmp_path)).text)
        assert f"Response A {label} {first}" in text


@pytest.mark.parametrize(
    ("verdict", "correct", "badge"),
    [("A", True, "✓ A, correct"), ("B", False, "✗ B, wrong"), (None, False, "∅ no verdict")],
)
def test_badges(young_summary, samples, tmp_path, verdict, correct, badge):
    judgment = dataclasses.replace(samples[0].judgment, verdict=verdict, correct=correct)
    text = _Page(_write(young_summary, [dataclasses.replace(samples[0], judgment=judgment)], tmp_path)).text
    assert badge in text


def test_lone_surrogates_do_not_stop_the_report(young_summary, samples, tmp_path):
    judgment = dataclasses.replace(samples[0].judgment, text="half \ud83d of a pair")
    page = _write(young_summary, [dataclasses.replace(samples[0], judgment=judgment)], tmp_path)
    assert "half ? of a pair" in page


def test_same_run_same_bytes_whatever_the_users_matplotlib(written, summary, samples, tmp_path):
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.hashsalt": "other"}):
        again = _write(summary, samples, tmp_path)
    assert written == again


def test_report_is_replaced_whole(young_summary, samples, tmp_path):
    out = epath.Path(tmp_path) / "report.html"
    out.write_text("old")
    broken = {name: value for name, value in young_summary.items() if name != "funnel"}
    with pytest.raises(Exception, match="funnel"):
        write_report(broken, samples, out)
    assert out.read_text() == "old"
    write_report(young_summary, samples, out)
    assert out.read_text().startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("missing", "figures"),
    [
        (("models", "yields", "training"), set()),
        (("models", "training"), {"yield", "balance", "correct"}),
        (("models", "yields"), {"loss", "validation"}),
    ],
)
def test_unfinished_runs_show_what_there_is(summary, tmp_path, missing, figures):
    summary |= {name: [] for name in missing}
    page = _Page(_write(summary, [], tmp_path))
    assert len(page.all("figure")) == len(figures)
    assert set(draw_figures(summary)) == figures
    ids = [attributes.get("id") for _, attributes in page.elements]
    assert set(SECTIONS) <= set(ids)


def test_judge_without_a_single_verdict(summary, tmp_path):
    shares = ("flip_rate", "first_preference", "longer_preference", "longer_correct")
    summary["models"] = [model | dict.fromkeys(shares) for model in summary["models"]]
    page = _Page(_write(summary | {"yields": [], "training": []}, [], tmp_path))
    position = next(svg["aria-label"] for svg in page.all("svg") if "Position" in svg["aria-label"])
    assert "Flips with the order (ideal is 0%): seed –, iteration 1 –" in position


def test_run_that_has_just_begun(young_summary, tmp_path):
    nothing = {"categories": {}, "labels": {}, "pairs": {}, "seconds": {}, "tokens": {}}
    young_summary |= nothing | {"funnel": [], "total_seconds": 0.0}
    text = _Page(_write(young_summary, [], tmp_path)).text
    for missing in ("Nothing has been selected", "No pairs have been made", "No stage has finished"):
        assert missing in text


@pytest.fixture(scope="module")
def figures(finished_run):
    return draw_figures(finished_run[0])


def test_figures_tell_their_numbers(figures):
    assert tuple(figures) == FIGURES
    assert "seed 50.0% (36.4–63.6%)" in figures["accuracy"].alt
    assert "iteration 1: 38 kept, 44 cut for balance, 38 none correct" in figures["yield"].alt
    assert "iteration 3: 24, 17, 23, 31, 25" in figures["correct"].alt
    assert "1 sampled 14.2%, 1 correct 23.2%, 1 kept 50.0%" in figures["balance"].alt
    assert "iteration 3 step 25 at 75.0%" in figures["validation"].alt


def test_figures_take_their_colors_from_the_page(figures):
    for name, plot in figures.items():
        assert "var(--accent)" in plot.svg, name
        assert not re.search(r"#[0-9a-fA-F]{6}\b", plot.svg), name
        assert "font-family" not in plot.svg, name


def test_iteration_without_evaluations_or_verdicts(summary):
    summary["training"][0] |= {"steps": [], "evaluations": []}
    summary["models"] = []
    summary["yields"][0] |= {"verdicts": {"A": 0, "B": 0}, "kept_verdicts": {"A": 0, "B": 0}}
    figures = draw_figures(summary)
    assert "iteration 1" not in figures["loss"].alt
    assert "1 sampled –" in figures["balance"].alt


def test_preferences_after_fine_tuning_are_told_apart(summary, samples, tmp_path):
    first = summary["training"][0]
    evaluations = [{"step": 1, "accuracy": 0.25, "chosen": True}]
    numbers = {
        "method": "dpo",
        "examples": 31,
        "without_wrong": 7,
        "unbalanced": 2,
        "evaluations": evaluations,
    }
    numbers["validation_too_long"] = 3
    summary["training"].insert(1, first | numbers)
    figures = draw_figures(summary)
    assert figures["loss"].alt.count("iteration 1 from") == 1
    assert figures["preference"].alt.startswith("Loss of the preference training: iteration 1 from")
    assert "iteration 1, dpo step 1 at 25.0%, iteration 2 " in figures["validation"].alt
    page = _write(summary, samples, tmp_path)
    rows = re.findall(r"<td>(sft|dpo)</td><td>(\d+)</td>\s*<td>([^<]+)</td>", page)
    assert rows == [("sft", "38", "–"), ("dpo", "31", "7"), ("sft", "52", "–"), ("sft", "74", "–")]
    assert re.findall(r"<td>7</td>\s*<td>(\d+)</td>", page) == ["2"]
    assert re.findall(r"<small>(\d+) pairs too\s+long</small>", page) == ["3"]
