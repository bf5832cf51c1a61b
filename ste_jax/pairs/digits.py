"""Numbers with one wrong digit."""

import numpy as np


def with_wrong_digit(number: str, random: np.random.Generator) -> str:
    """Returns a number in which one digit differs, as long as before and without a new leading zero.

    Args:
      number: digits, with commas or a point among them, such as "1,250.5".
      random: draws the place and the digit.
    """
    places = [at for at, character in enumerate(number) if character.isdigit()]
    at = places[random.integers(len(places))]
    is_leading = at == places[0] and len(places) > 1
    digits = [digit for digit in "0123456789"[is_leading:] if digit != number[at]]
    return number[:at] + digits[random.integers(len(digits))] + number[at + 1 :]
