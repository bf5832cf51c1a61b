"""Instructions with answers, written by hand, that the tests of the kinds of pairs start from."""

from ste_jax.pairs.candidate import Answered, Candidate

TEXTS = {
    "bread": (
        "How do I bake bread without yeast?",
        "Bread without yeast rises with baking soda. Mix flour, soda and salt in a bowl. Add "
        "buttermilk and knead the dough briefly. Bake the loaf for forty minutes until it sounds "
        "hollow.",
    ),
    "cake": (
        "How do I bake a sponge cake without eggs?",
        "A sponge needs air, and mineral water gives it air when eggs are missing. Stir the batter "
        "gently, pour it into a tin and leave the oven closed for half an hour. Let the sponge cool "
        "before you cut it.",
    ),
    "wall": (
        "How do I paint a wall without tape?",
        "Hold a wide scraper against the edge and move it along as you paint. Load the brush lightly, "
        "since a wet brush drips. Paint the wall from the top down. Wipe the scraper after every "
        "stroke.",
    ),
    "fence": (
        "How do I paint a garden fence in winter?",
        "Wait for a dry day above five degrees before you touch the fence. Brush off moss and old "
        "flakes first. Thin coats of paint dry better in the cold than one thick coat does.",
    ),
    "rivers": (
        "Name three rivers in Asia and say where they rise.",
        "1. The Mekong rises on the Tibetan plateau.\n2. The Lena rises near Lake Baikal.\n3. The "
        "Indus rises close to Mount Kailash.",
    ),
    "lakes": (
        "Name the largest lakes in Africa with their countries.",
        "Lake Victoria lies between Uganda, Kenya and Tanzania. Tanganyika is shared by four "
        "countries, among them Zambia. Malawi has a lake of the same name in the south.",
    ),
    "tides": (
        "Why does the sea have tides?",
        "The moon pulls the water of the sea towards itself. As the earth turns, each coast passes "
        "the bulge twice a day. The sun helps, so tides are strongest at full moon.",
    ),
    "waves": (
        "Why do waves break at the beach?",
        "Near the beach the ground slows the lower part of waves. The crest keeps its speed and falls "
        "over. Steep beaches make them plunge, flat ones make them spill slowly.",
    ),
    "fox": (
        "Write a short fable about a fox and a stork.",
        "A fox served soup on a flat plate, and the stork went hungry. The next day the stork served "
        "fish in a tall jar. The fox could only lick the rim. He walked home and laughed at himself.",
    ),
    "contract": (
        "What should a freelance contract for a translator contain?",
        "A contract for a translator states the languages, the number of words and the fee. It names "
        "the date of delivery and who owns the translation. Add a clause for late payment.",
    ),
}


def answered(*ids: str) -> list[Answered]:
    """Returns the instructions with these ids, or all."""
    return [Answered(id=id_, instruction=TEXTS[id_][0], answer=TEXTS[id_][1]) for id_ in ids or TEXTS]


def by_key(candidates: list[Candidate]) -> dict[str, Candidate]:
    """Returns candidates by their key, which must be unique."""
    found = {candidate.key: candidate for candidate in candidates}
    assert len(found) == len(candidates)
    return found


def check_kind(kind) -> list[Candidate]:
    """Checks what all kinds promise, on all texts, and returns the candidates of several seeds."""
    texts, made = answered(), []
    for seed in range(12):
        candidates = kind(texts, seed=seed)
        assert candidates
        assert (
            by_key(candidates)
            == by_key(kind(texts[::-1], seed=seed))
            == by_key(kind(texts[3:] + texts[:3], seed=seed))
        )
        for candidate in candidates:
            assert candidate.better.strip()
            assert candidate.worse.strip()
            assert candidate.better != candidate.worse
            assert candidate.sources
            assert set(candidate.sources) <= set(TEXTS)
            assert len(set(candidate.sources)) == len(candidate.sources)
        made += candidates
    for few in (texts[:1], []):
        kind(few, seed=0)
    return made
