"""Ranks five answers to a question with a judge, and prints them from best to worst.

python scripts/rank_answers.py runs/quickstart/iteration_1/model
"""

import argparse

import ste_jax as ste

QUESTION = "How can I keep bread fresh for longer?"
ANSWERS = [
    "Bread dries out in the fridge, so keep it at room temperature in a bread box or a paper bag, with the "
    "cut side down. Freeze in slices what you will not eat within two days, and toast them from frozen.",
    "Keep it in a bread box or a paper bag at room temperature, and freeze what you will not eat soon.",
    "Bread is best kept in a",
    "The violin has four strings, which are tuned in fifths. Beginners should practise with slow bow "
    "strokes in front of a mirror and check that the bow stays parallel to the bridge.",
    "I like bread.",
]


def main() -> None:
    """Prints the ranking."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a model folder of a run, a Hugging Face model or a GGUF file")
    judge = ste.Judge.load(parser.parse_args().model)
    ranking = judge.rank(QUESTION, ANSWERS)
    print(QUESTION)
    for index in sorted(range(len(ANSWERS)), key=ranking.ranks.__getitem__):
        answer = ANSWERS[index] if len(ANSWERS[index]) <= 70 else ANSWERS[index][:70] + " ..."
        print(f"{ranking.ranks[index]}. (beats others with {ranking.win_probabilities[index]:.0%}) {answer}")


if __name__ == "__main__":
    main()
