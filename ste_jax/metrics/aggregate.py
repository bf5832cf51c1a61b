"""From stored judgments to judged pairs: one verdict a pair and order, greedy or by majority."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ste_jax.judging.verdict import Verdict, parse_verdict
from ste_jax.metrics.stats import JudgedPair, Policy
from ste_jax.metrics.traits import traits
from ste_jax.metrics.vote import Example, majority
from ste_jax.records import ORDERS, Comparison, Judgment, Label, Order, Outcome, Record, opposite
from ste_jax.storage.files import digest

Reader = Callable[[Judgment], Verdict]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts(Record):
    """What the numbers need to know of a comparison: all but its texts, which `content` is the hash of."""

    prompt_id: str
    label: Outcome | None
    subset: str = ""
    category: str | None = None
    votes: dict[str, int] = dataclasses.field(default_factory=dict)
    length_a: int
    length_b: int
    traits_a: list[str] = dataclasses.field(default_factory=list)
    traits_b: list[str] = dataclasses.field(default_factory=list)
    content: str = ""


def facts_of(item: Comparison) -> Facts:
    """Returns the facts of a comparison."""
    return _facts(item, prompt_id=item.prompt_id, subset=item.subset, votes=item.votes)


def _facts(item: Comparison, **own: Any) -> Facts:
    return Facts(
        id=item.id,
        label=item.label,
        category=item.category,
        length_a=len(item.response_a),
        length_b=len(item.response_b),
        traits_a=traits(item.response_a),
        traits_b=traits(item.response_b),
        content=digest([item.instruction, item.response_a, item.response_b]),
        **own,
    )


def as_recorded(judgment: Judgment) -> Verdict:
    """Returns the verdict that was read when the judgment was made."""
    return Verdict(judgment.verdict, judgment.status)


def read_again(judgment: Judgment, policy: Policy) -> Verdict:
    """Returns the verdict of a judgment's text under a policy."""
    verdict = parse_verdict(judgment.text, truncated=judgment.finish == "length")
    if policy.name == "rewardbench" and verdict.status == "both":
        # The one difference of that reader: it looks for [[A]] before [[B]], wherever they stand.
        return Verdict("A", "both")
    return verdict


def judged_pairs(
    facts: Iterable[Facts], judgments: Iterable[Judgment], *, seed: int, read: Reader = as_recorded
) -> list[JudgedPair]:
    """Returns the pairs that were judged in both orders, each verdict the majority over its samples."""
    found = _by_example(judgments, read)
    judged = []
    for fact in facts:
        samples = [found.get((fact.id, order), []) for order in ORDERS]
        if all(samples):
            given, swapped = (
                _outcome(f"{fact.id}/{order}", some, seed)
                for order, some in zip(ORDERS, samples, strict=True)
            )
            judged.append(_judged(fact, given, swapped))
    return judged


def vote_examples(
    facts: Iterable[Facts], judgments: Iterable[Judgment], *, read: Reader = as_recorded
) -> list[Example]:
    """Returns what `vote_curve` reads: a label and the sampled verdicts of every pair and order, ties out."""
    found = _by_example(judgments, read)
    examples = []
    for fact in facts:
        if fact.label in (None, "tie") or any((fact.id, order) not in found for order in ORDERS):
            continue
        labels: tuple[Label, Label] = (fact.label, opposite(fact.label))
        for order, label in zip(ORDERS, labels, strict=True):
            verdicts: list[Label | None] = [verdict.label for verdict, _ in found[fact.id, order]]
            examples.append(Example(f"{fact.id}/{order}", label, verdicts))
    return examples


def silent_samples(judgments: Iterable[Judgment], *, read: Reader = as_recorded) -> dict[str, int]:
    """Returns how many samples gave no verdict, by status."""
    verdicts = map(read, judgments)
    return dict(sorted(Counter(v.status for v in verdicts if v.label is None).items()))


_Samples = list[tuple[Verdict, bool]]


class _Outcome(NamedTuple):
    verdict: Label | None
    status: str
    forced: float


def _by_example(judgments: Iterable[Judgment], read: Reader) -> dict[tuple[str, Order], _Samples]:
    """Returns (verdict, whether it was forced) of the samples of each pair and order, by sample number."""
    found: dict[tuple[str, Order], _Samples] = defaultdict(list)
    for judgment in sorted(judgments, key=lambda judgment: judgment.sample):
        found[judgment.pair_id, judgment.order].append((read(judgment), judgment.forced))
    return found


def _outcome(key: str, samples: _Samples, seed: int) -> _Outcome:
    verdict, forced = samples[0]
    if len(samples) == 1:
        return _Outcome(verdict.label, verdict.status, forced)
    label = majority([verdict.label for verdict, _ in samples], seed_key=(seed, key))
    reason, _ = Counter(verdict.status for verdict, _ in samples).most_common(1)[0]
    return _Outcome(label, "ok" if label else reason, sum(forced for _, forced in samples) / len(samples))


def _judged(fact: Facts, given: _Outcome, swapped: _Outcome) -> JudgedPair:
    return JudgedPair(
        pair_id=fact.id,
        label=fact.label or "tie",
        verdicts=(given.verdict, swapped.verdict),
        statuses=(given.status, swapped.status),
        forced=(given.forced, swapped.forced),
        length_a=fact.length_a,
        length_b=fact.length_b,
        prompt_id=fact.prompt_id,
        subset=fact.subset,
        category=fact.category,
        votes=fact.votes,
        traits=(frozenset(fact.traits_a), frozenset(fact.traits_b)),
    )
