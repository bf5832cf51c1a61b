import dataclasses
import json
import random
import tracemalloc
from collections import Counter

import pytest
from etils import epath

from ste_jax.judging.selection import pair_with_rejected, select_for_training, yield_report
from ste_jax.records import ORDERS, Comparison, Judgment
from ste_jax.storage.readers import IndexedRecords
from ste_jax.storage.record_set import RecordSet
from tests.errors import raises


def pair(i, label, a="long answer", b="short"):
    return Comparison(id=f"p{i}", prompt_id=f"i{i}", instruction="x", response_a=a, response_b=b, label=label)


def judgment(of, order, sample, verdict, forced=False):
    return Judgment(
        id=f"{of.id}/{order}/{sample}",
        pair_id=of.id,
        order=order,
        sample=sample,
        text=f"[[{verdict}]]",
        tokens=[],
        verdict=verdict,
        status="ok" if verdict else "missing",
        forced=forced,
        correct=verdict == of.correct_verdict(order),
    )


@pytest.fixture(scope="module")
def annotation():
    rng = random.Random(0)
    pairs = [pair(i, "AB"[i % 2]) for i in range(200)]
    judgments = [
        judgment(p, order, s, rng.choice(["A", "A", "A", "B", None]))
        for p in pairs
        for order in ORDERS
        for s in range(4)
    ]
    return pairs, judgments


def test_keeps_one_correct_judgment_an_example_and_balances(annotation):
    pairs, judgments = annotation
    kept = select_for_training(judgments, pairs, seed=7)
    assert all(j.correct for j in kept)
    assert max(Counter((j.pair_id, j.order) for j in kept).values()) == 1
    verdicts = Counter(j.verdict for j in kept)
    with_correct = {(j.pair_id, j.order, j.verdict) for j in judgments if j.correct}
    available = Counter(verdict for _, _, verdict in with_correct)
    assert available["A"] > available["B"] > 0
    assert verdicts == {"A": available["B"], "B": available["B"]}
    assert [j.id for j in kept] == sorted(j.id for j in kept)


def test_each_kept_judgment_is_matched_with_a_wrong_one_of_its_example_if_there_is_one(annotation):
    pairs, judgments = annotation
    kept = select_for_training(judgments, pairs, seed=7)
    wrong = {(j.pair_id, j.order) for j in judgments if j.verdict is not None and not j.correct}
    found = pair_with_rejected(kept, judgments, seed=7)
    matched = found.pairs
    able = [j for j in kept if (j.pair_id, j.order) in wrong]
    available, verdicts = (Counter(j.verdict for j in some) for some in (able, [good for good, _ in matched]))
    assert available["A"] != available["B"], "the case that needs balancing"
    assert verdicts == dict.fromkeys("AB", min(available.values()))
    assert found.without_wrong == len(kept) - len(able) > 0, "not what balancing leaves out"
    assert found.unbalanced == max(available.values()) - min(available.values())
    assert {good.id for good, _ in matched} <= {j.id for j in able}
    assert 0 < len(matched) < len(kept)
    for good, bad in matched:
        assert (good.pair_id, good.order) == (bad.pair_id, bad.order)
        assert bad.verdict is not None
        assert not bad.correct
    assert pair_with_rejected(kept, judgments[::-1], seed=7) == found
    assert pair_with_rejected(kept, judgments, seed=8).pairs != matched


def test_selection_depends_on_seed_and_ids_only(annotation):
    pairs, judgments = annotation
    shuffled = random.Random(1).sample(judgments, len(judgments))
    kept = select_for_training(judgments, pairs, seed=7)
    assert select_for_training(shuffled, pairs[::-1], seed=7) == kept
    assert select_for_training(judgments, pairs, seed=8) != kept


def test_the_kept_sample_is_drawn_evenly():
    pairs = [pair(i, "A") for i in range(600)]
    judgments = [
        judgment(p, order, s, p.correct_verdict(order)) for p in pairs for order in ORDERS for s in range(3)
    ]
    samples = Counter(j.sample for j in select_for_training(judgments, pairs, seed=0))
    assert sum(samples.values()) == 1200
    assert all(330 < samples[s] < 470 for s in range(3))


def test_more_than_one_of_an_example():
    p = pair(0, "A")
    judgments = [judgment(p, order, s, p.correct_verdict(order)) for order in ORDERS for s in range(5)]
    kept = select_for_training(judgments, [p], seed=0, max_per_example=2)
    assert Counter(j.order for j in kept) == {"as_given": 2, "swapped": 2}
    assert len({j.id for j in kept}) == 4


def test_pairs_correct_in_one_order_only_are_left_out_if_asked_and_counted(annotation):
    pairs, judgments = annotation
    correct = {(j.pair_id, j.order) for j in judgments if j.correct}
    consistent = {p.id for p in pairs if all((p.id, order) in correct for order in ORDERS)}
    assert 0 < len(consistent) < len({pair_id for pair_id, _ in correct})
    kept = select_for_training(judgments, pairs, seed=7, both_orders=True)
    # Both orders of each: the verdicts are balanced already, and nothing more is cut.
    assert {(j.pair_id, j.order) for j in kept} == {(id_, order) for id_ in consistent for order in ORDERS}
    assert Counter(j.verdict for j in kept) == {"A": len(consistent), "B": len(consistent)}

    free = yield_report(judgments, select_for_training(judgments, pairs, seed=7), pairs)
    strict = yield_report(judgments, kept, pairs, both_orders=True)
    assert (free.one_order, strict.one_order) == (0, len(correct) - 2 * len(consistent))
    assert strict.examples_correct == {"A": len(consistent), "B": len(consistent)}
    assert strict.examples == strict.kept + strict.one_order + strict.dropped


def test_one_sided_or_no_correct_judgments_leave_nothing():
    p = pair(0, "A")
    always_a = [judgment(p, order, 0, "A") for order in ORDERS]
    assert select_for_training(always_a, [p], seed=0) == []
    assert select_for_training([], [p], seed=0) == []


def test_judgments_that_do_not_fit_the_pairs_are_refused():
    p = pair(0, "A")
    judgments = [judgment(p, "as_given", 0, "A")]
    with raises("data_damaged", "pair p0"):
        select_for_training(judgments, [], seed=0)
    with raises("data_damaged", "pair p0"):
        select_for_training(judgments, [pair(0, "B")], seed=0)


def test_yield_report():
    pairs = [pair(0, "A"), pair(1, "B", a="1234567", b="12")]
    judgments = [
        *(judgment(pairs[0], "as_given", s, "A") for s in range(3)),
        *(judgment(pairs[0], "swapped", s, v, forced=True) for s, v in enumerate(["A", None, "B"])),
        *(judgment(pairs[1], "as_given", s, "A") for s in range(3)),
        *(judgment(pairs[1], "swapped", s, v) for s, v in enumerate([None, "B"])),
    ]
    kept = select_for_training(judgments, pairs, seed=0)
    report = yield_report(judgments, kept, pairs)
    assert (report.examples, report.judgments, report.kept) == (4, 11, 2)
    assert (report.parsed, report.forced) == (9, 3)
    assert report.statuses == {"missing": 2, "ok": 9}
    assert report.correct_histogram == {0: 2, 1: 1, 3: 1}
    assert (report.dropped, report.too_easy) == (2, 1)
    assert report.verdicts == {"A": 7, "B": 2}
    assert report.verdicts_correct == {"A": 3, "B": 1}
    assert sum(report.examples_correct.values()) == report.examples - report.dropped
    assert report.verdicts_kept == {"A": 1, "B": 1}
    assert report.length_difference == pytest.approx((6 + 6 - 5 - 5) / 4)
    assert report.length_difference_kept == 6.0
    assert json.loads(json.dumps(report.to_json()))["correct_histogram"] == {"0": 2, "1": 1, "3": 1}


def test_yield_of_nothing():
    report = yield_report([], [], [])
    assert (report.examples, report.kept, report.parsed, report.length_difference) == (0, 0, 0, None)


def test_examples_that_stopped_early_can_be_too_easy():
    p = pair(0, "A")
    judgments = [*(judgment(p, "as_given", s, "A") for s in range(2)), judgment(p, "swapped", 0, "B")]
    assert yield_report(judgments, [], [p]).too_easy == 2
    judgments.append(judgment(p, "swapped", 1, "A"))
    assert yield_report(judgments, [], [p]).too_easy == 1


def test_judgments_on_disk_are_selected_without_being_held(annotation, tmp_path):
    """The results are those of lists, and only a part of the judgments is in memory at once."""
    pairs, _ = annotation
    judgments = [
        dataclasses.replace(judgment(p, order, s, verdict), text=f"{p.id} {verdict} " * 1000)
        for p in pairs
        for order in ORDERS
        for s, verdict in enumerate("AABAB")
    ]
    folder = epath.Path(tmp_path)
    records = RecordSet(folder, Judgment, {})
    for one in judgments:
        records.add(one.id, [one])
    records.finish([one.id for one in judgments], {})
    kept = select_for_training(judgments, pairs, seed=7)
    report = yield_report(judgments, kept, pairs)
    matched = pair_with_rejected(kept, judgments, seed=7)
    size = sum(len(one.text) for one in judgments)
    del judgments

    stored = IndexedRecords(folder, Judgment)
    tracemalloc.start()
    try:
        kept_on_disk = select_for_training(stored, pairs, seed=7)
        assert yield_report(stored, kept_on_disk, pairs) == report
        matched_on_disk = pair_with_rejected(kept_on_disk, stored, seed=7)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size / 2
    assert list(kept_on_disk) == kept
    assert list(matched_on_disk.pairs) == matched.pairs
    assert (matched_on_disk.without_wrong, matched_on_disk.unbalanced) == (
        matched.without_wrong,
        matched.unbalanced,
    )
