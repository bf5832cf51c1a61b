"""MT-Bench human judgments (arXiv 2306.05685): agreement with each vote of an expert, by turn.

As in the code of FastChat, votes of the authors are left out, both orders are judged, and two verdicts that
disagree count as a tie. The setup with ties counts all votes; the setup without leaves out ties of the
judge and of the experts. A comparison of turn 2 shows both turns.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from ste_jax.benchmarks.pairing import assistant_text, user_text
from ste_jax.benchmarks.source import Record
from ste_jax.benchmarks.splits import without_splits
from ste_jax.errors import SteError
from ste_jax.metrics.agreement import agreement
from ste_jax.metrics.policy import Policy
from ste_jax.records import Comparison, ComparisonResult, Outcome

HUB = "lmsys/mt_bench_human_judgments"
PATTERNS = ("data/human-*.parquet",)
RECORD = ("turn", "winner", "judge", "conversation_a", "conversation_b")
SPLIT = "human"
RECORDS = 3_355
ARE_VOTES = True
TURNS = ("turn1", "turn2")
# Ten questions per category, numbered from 81.
_CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")


def choose(files: Sequence[str]) -> list[str]:
    """Returns the files with votes of people; the other split has those of GPT-4."""
    return without_splits(files, ("gpt4", "gpt", "model_judgment"), (SPLIT,))


def items(rows: Sequence[Record]) -> tuple[list[Comparison], dict[str, Any]]:
    """Returns a comparison with its votes for every question, pair of models and turn."""
    votes: dict[tuple[int, str, str, int], Counter[str]] = {}
    shown: dict[tuple[int, str, str, int], tuple[str, str, str]] = {}
    authors = models = 0
    for row in rows:
        judge = row.fields.get("judge")
        # The judge of a model's vote may be a list: the model and its prompt.
        judge = "" if isinstance(judge, list) else row.text("judge")
        authors += judge.startswith("author")
        models += not judge.startswith(("author", "expert"))
        if not judge.startswith("expert"):
            continue
        question, turn = (_whole(row, name) for name in ("question_id", "turn"))
        if turn not in (1, 2):
            raise SteError("data_invalid", f"{row.where}: the turn is {turn}, not 1 or 2")
        a, b = row.text("model_a"), row.text("model_b")
        (first, side_a), (second, side_b) = sorted(((a, "a"), (b, "b")))
        key = (question, first, second, turn)
        outcomes = {f"model_{side_a}": "A", f"model_{side_b}": "B"}
        winner = row.text("winner")
        if winner not in outcomes and not winner.startswith("tie"):
            raise SteError("data_invalid", f"{row.where}: the winner is {winner!r}; download the files again")
        votes.setdefault(key, Counter())[outcomes.get(winner, "tie")] += 1
        talk_a, talk_b = (row.turns(f"conversation_{side}")[: 2 * turn] for side in (side_a, side_b))
        if min(len(talk_a), len(talk_b)) < 2 * turn:
            raise SteError("data_invalid", f"{row.where}: the conversations have fewer than {turn} turns")
        texts = (user_text(talk_a), assistant_text(talk_a), assistant_text(talk_b))
        if shown.setdefault(key, texts) != texts:
            raise SteError(
                "data_invalid",
                f"{row.where}: an earlier vote on question {question}, {a} and {b} has other conversations; "
                "download the files again",
            )
    made = [_item(key, shown[key], votes[key]) for key in sorted(votes)]
    left_out = {"votes_of_authors_left_out": authors, "votes_of_models_left_out": models}
    return made, {name: count for name, count in left_out.items() if count}


def _whole(row: Record, name: str) -> int:
    value = row.number(name)
    if value != int(value):
        raise SteError("data_invalid", f"{row.where}: the {name} is {value}, expected a whole number")
    return int(value)


def _item(key: tuple[int, str, str, int], shown: tuple[str, str, str], votes: Counter[str]) -> Comparison:
    question, first, second, turn = key
    instruction, response_a, response_b = shown
    ranked = votes.most_common(2)
    clear = len(ranked) == 1 or ranked[0][1] > ranked[1][1]
    at = (question - 81) // 10
    return Comparison(
        id=f"q{question}/{first}/{second}/turn{turn}",
        prompt_id=f"q{question}",
        instruction=instruction,
        response_a=response_a,
        response_b=response_b,
        label=cast(Outcome, ranked[0][0]) if clear else "tie",
        subset=f"turn{turn}",
        category=_CATEGORIES[at] if 0 <= at < len(_CATEGORIES) else None,
        votes=dict(votes),
    )


def aggregate(pairs: Sequence[ComparisonResult], policy: Policy, seed: int) -> dict[str, Any]:
    """Returns the agreement with the votes of people by turn, with and without ties."""
    by_turn = {turn: [pair for pair in pairs if pair.comparison.subset == turn] for turn in TURNS}
    table = {turn: agreement(judged, policy, seed) for turn, judged in by_turn.items()}
    return {
        "agreement": {
            turn: {name: table[turn][name] for name in ("with_ties", "without_ties")} for turn in TURNS
        },
        "missing_subsets": [turn for turn in TURNS if not by_turn[turn]],
    }
