import itertools
import json
import pickle
import shutil
from pathlib import Path

import pytest

from ste_jax.data.comparisons import Ranking
from ste_jax.judge import Judge
from ste_jax.judging.prompts import load_prompt
from ste_jax.judging.ranking import RankResult
from ste_jax.judging.verdict import PARSER
from ste_jax.records import Comparison
from ste_jax.storage.jsonl_output import iter_output
from tests.errors import raises
from tests.judges import load_judge

X = "Name the capital of France."
ANSWERS = ["The capital of France is Paris.", "Bananas are yellow.", "Paris, I think.", "No.", "It is Rome."]


@pytest.fixture(scope="module")
def judge(tiny_model: Path) -> Judge:
    return load_judge(tiny_model, prompt="verdict", max_new_tokens=0, sequences=16)


def test_rank_follows_from_comparisons_and_ignores_the_order(judge: Judge):
    four = ANSWERS[:4]
    r = judge.rank(X, four)
    pairs = [
        {"instruction": X, "response_a": a, "response_b": b, "id": f"{i}/{j}"}
        for (i, a), (j, b) in itertools.combinations(enumerate(four), 2)
    ]
    p = {result.id: result.probability_a for result in judge.compare_many(pairs)}
    wins = [[p[f"{i}/{j}"] if i < j else 1 - p[f"{j}/{i}"] for j in range(4) if j != i] for i in range(4)]
    assert r.win_probabilities == pytest.approx([sum(row) / 3 for row in wins], abs=1e-12)
    assert r.ranks == [1 + sum(q > w for q in r.win_probabilities) for w in r.win_probabilities]
    assert r.comparisons == 6
    assert r.usage["total_tokens"] == r.usage["prompt_tokens"] + r.usage["completion_tokens"] > 0
    assert four[r.best] == judge.best_of(X, four[::-1])
    turned = judge.rank(X, four[::-1])
    assert (turned.ranks[::-1], turned.strengths[::-1]) == (r.ranks, r.strengths)
    assert judge.rank(X, four[:1]).comparisons == 0


def test_rank_takes_methods_and_budgets(judge: Judge):
    r = judge.rank(X, ANSWERS, max_comparisons=4)
    assert (r.method, r.comparisons) == ("knockout", 4)
    assert judge.rank(X, ANSWERS).method == "swiss"
    with raises("argument_invalid", "max_comparisons"):
        judge.rank(X, ANSWERS, max_comparisons=2)
    with raises("argument_invalid", "list"):
        judge.rank(X, "text")
    with raises("data_invalid", "instruction"):
        judge.rank(" ", ANSWERS)


def test_score_against_opponents_is_their_mean_win_probability(judge: Judge):
    a, b, c = ANSWERS[:3]
    against = [judge.compare(X, a, opponent).probability_a for opponent in (b, c)]
    baseline, anchors = judge.score(X, a, baseline=b), judge.score(X, a, anchors=[b, c])
    assert baseline.value == pytest.approx(against[0], abs=1e-12)
    assert anchors.value == pytest.approx(sum(against) / 2, abs=1e-12)
    assert (baseline.method, anchors.method) == ("baseline", "anchors")
    assert not baseline.trained  # a model without a judge's card
    assert len(anchors.comparisons or ()) == 2


def test_score_on_a_scale_is_within_it_and_the_same_in_any_batch(judge: Judge):
    result = judge.score(X, ANSWERS[0], scale=(0, 9))
    assert result.value is not None
    assert 0 < result.value < 9
    assert result.trained is False
    assert sum((result.probabilities or {}).values()) == pytest.approx(1)
    assert 0 < (result.level_mass or 0) <= 1
    rows = [{"instruction": X, "response": answer} for answer in ANSWERS]
    many = judge.score_many(rows, scale=(0, 9))
    assert many[0].value == pytest.approx(result.value, abs=1e-4)
    assert len({score.value for score in many}) == len(ANSWERS)
    assert judge.score(X, ANSWERS[0]).value != result.value
    other = judge.score(X, ANSWERS[0], scale=(0, 9), rubric="Is it short?", reference="Paris")
    assert other.value != result.value


def test_a_response_that_does_not_fit_has_no_score(judge: Judge):
    for options in ({}, {"baseline": "No."}):
        result = judge.score(X, "word " * 5000, **options)
        assert (result.value, result.abstained) == (None, "too_long")


def test_bad_arguments_of_score(judge: Judge):
    with raises("argument_invalid", "anchors"):
        judge.score(X, "a", baseline="b", anchors=["c"])
    with raises("argument_invalid", "anchors"):
        judge.score(X, "a", anchors=[])
    with raises("argument_invalid", "scale"):
        judge.score(X, "a", scale=(5, 1))
    with raises("data_invalid", "response"):
        judge.score(X, 3)  # pyright: ignore[reportArgumentType]


def test_files_of_rankings_and_scores_are_resumed_and_read_back(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ste_jax.judge_uses.CHUNK", 2)
    rows = [
        {"instruction": f"{X} ({k})", "responses": ANSWERS[:3], "id": f"r{k}", "best": k, "topic": "cities"}
        for k in range(5)
    ]
    out = tmp_path / "ranks.jsonl"
    expected = judge.rank_many(rows)
    calls = []
    compare_many = Judge.compare_many

    def counted(self, pairs, **options):
        calls.append(len(pairs))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compare_many(self, pairs, **options)

    monkeypatch.setattr(Judge, "compare_many", counted)
    with pytest.raises(KeyboardInterrupt):
        judge.rank_many(rows, out=out)
    assert not out.exists()
    assert judge.rank_many(rows, out=out) == expected
    assert calls == [6, 6, 6, 3]  # the first two rows were not compared again
    assert judge.rank_many(rows, out=out) == expected
    assert len(calls) == 4
    records = list(iter_output(out))
    for record, row, result in zip(records, rows, expected, strict=True):
        assert record["topic"] == "cities"
        assert record["input_best"] == row["best"]
        assert json.loads(json.dumps(result.to_dict())) == {k: record[k] for k in result.to_dict()}
    with raises("output_mismatch", "method"):
        judge.rank_many(rows, out=out, method="knockout")
    monkeypatch.undo()
    scores = [
        {"instruction": X, "response": a, "id": a} | ({"baseline": "No."} if a < "J" else {}) for a in ANSWERS
    ]
    found = judge.score_many(scores, out=tmp_path / "scores.jsonl")
    assert [score.method for score in found] == ["scale", "baseline", "scale", "scale", "baseline"]
    assert judge.score_many(scores, out=tmp_path / "scores.jsonl") == found == judge.score_many(scores)


def test_all_rows_are_checked_first(judge: Judge, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Judge, "compare_many", lambda *_, **__: pytest.fail("compared"))
    good = {"instruction": X, "responses": ANSWERS[:2]}
    with raises("data_invalid", "rows[1]", "responses"):
        judge.rank_many([good, {"instruction": X}])
    with raises("data_invalid", "rows[1]", "'a'"):
        judge.rank_many([good | {"id": "a"}] * 2)
    with raises("data_invalid", "rows[0]"):
        judge.score_many([good])


def test_rewards_come_from_the_judge(judge: Judge):
    a, b = ANSWERS[:2]
    p = judge.compare(X, a, b).probability_a
    turns = [{"role": "user", "content": X}]
    assert judge.reward_function(baseline="other")([turns], [a], other=[b]) == [p]
    assert judge.reward_function()([X, X], [a, b]) == pytest.approx([p, 1 - p])


def test_a_judge_is_opened_again_in_another_process(judge: Judge):
    a, b = ANSWERS[:2]
    reward = pickle.loads(pickle.dumps(judge.reward_function(baseline="other").for_areal()))
    assert reward.args[0].judge is not judge
    assert reward.args[0].judge is pickle.loads(pickle.dumps(judge))
    assert reward(X, a, [1], [2], other=b) == judge.compare(X, a, b).probability_a
    with pytest.raises(TypeError, match="load"):
        pickle.dumps(Judge(judge.model, judge.settings))


@pytest.fixture
def picky(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """A judge whose chat template refuses texts with the word UNSPEAKABLE."""
    tokenizer = judge.model.source.tokenizer
    refusal = "{% if 'UNSPEAKABLE' in messages[-1].content %}{{ raise_exception('refused') }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", refusal + tokenizer.chat_template)
    return judge


def test_a_text_that_cannot_be_encoded_fails_alone(picky: Judge):
    a, b, bad = *ANSWERS[:2], "UNSPEAKABLE"
    pairs = [{"instruction": X, "response_a": p, "response_b": q} for p, q in ((a, b), (a, bad), (bad, bad))]
    good, *failed = picky.compare_many(pairs)
    assert (good.error, good.abstained) == (None, None)
    for result in failed:
        assert (result.winner, result.probability_a, result.abstained) == (None, None, "no_verdict")
        assert result.id in (result.error or "")
    ranking = picky.rank(X, [a, b, bad])
    assert (ranking.comparisons, ranking.abstained, len(ranking.errors)) == (3, 2, 2)
    assert RankResult.from_dict(json.loads(json.dumps(ranking.to_dict()))) == ranking
    rows = [{"instruction": X, "response": a}, {"instruction": X, "response": bad}]
    whole, broken, against = picky.score_many([*rows, rows[0] | {"baseline": bad}])
    assert (whole.error, whole.abstained) == (None, None)
    for score in (broken, against):
        assert (score.value, score.abstained) == (None, "no_verdict")
        assert score.to_dict()["error"]
    anchors = picky.score(X, a, anchors=[b, bad])
    assert anchors.value == pytest.approx(good.probability_a, abs=1e-6)
    assert anchors.error


def test_identical_responses_that_do_not_fit_are_too_long(tiny_model: Path):
    fresh = load_judge(tiny_model, prompt="verdict", max_new_tokens=0)
    long = "word " * 5000
    assert fresh.compare(X, long, long).abstained == "too_long"
    assert fresh.compare(X, "word", "word").abstained == "tie"
    assert fresh.model._engine is None


def test_records_with_the_same_id_are_refused(judge: Judge):
    pair = Comparison(id="same", instruction=X, response_a="a", response_b="b")
    with raises("data_invalid", "pairs[1]", "'same'", "pairs[0]"):
        judge.compare_many([pair, pair])
    with raises("data_invalid", "rows[1]", "'same'"):
        judge.rank_many([Ranking(id="same", instruction=X, responses=("a", "b"))] * 2)


def test_a_reference_needs_a_judge_that_was_trained_with_any_prompt(tiny_model: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    card = json.loads((folder / "model.json").read_text())
    card |= {"judge_prompt": load_prompt("verdict").to_json(), "parser": PARSER}
    (folder / "model.json").write_text(json.dumps(card))
    trained = load_judge(folder, max_new_tokens=0, force_verdict=True)
    with_reference = {"instruction": X, "reference": "Paris"}
    for call in (
        lambda: trained.compare(X, "a", "b", reference="Paris"),
        lambda: trained.compare_many([with_reference | {"response_a": "a", "response_b": "b"}]),
        lambda: trained.rank(X, ["a", "b"], reference="Paris"),
        lambda: trained.score(X, "a", baseline="b", reference="Paris"),
        lambda: trained.score(X, "a", anchors=["b"], reference="Paris"),
        lambda: trained.reward_function(reference="solution"),
    ):
        with raises("untrained_prompt", "allow_untrained_prompt"):
            call()
    with raises("untrained_prompt", "allow_untrained_prompt"):
        trained.compare(X, "a", "b", rubric="Be brief.")
    assert trained.model._engine is None
    trained.check_reference(None)
    user = load_prompt("verdict").user.replace("### Response A", "### Truth\n{reference}\n### Response A")
    shows = {**load_prompt("verdict").to_json(), "user": user}
    del shows["reference_section"]
    (folder / "model.json").write_text(json.dumps(card | {"judge_prompt": shows}))
    with_references = load_judge(folder, max_new_tokens=0, force_verdict=True)
    with_references.check_reference("Paris")
    with raises("reference_missing", "compare"):
        with_references.compare(X, "a", "b")
    (folder / "model.json").write_text(json.dumps(card))
    load_judge(folder, max_new_tokens=0, force_verdict=True, allow_untrained_prompt=True).check_reference("P")
