"""Surface features of responses: length, lists and markdown, which a judge may prefer whatever they say."""

import dataclasses
import re
from typing import Any

from ste_jax.records import SURFACE_KEY, Comparison, Label
from ste_jax.storage.files import digest
from ste_jax.typed_json import build

_LIST = re.compile(r"^[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])[ \t]+\S", re.M)
_MARKDOWN = re.compile(r"^#{1,6} \S|^[ \t]*```|\*\*[^*\n]+\*\*|^\|.*\|[ \t]*$", re.M)
TRAITS = ("list", "markdown")
# Key of the surface in result files written before the key was reserved.
_OLD_KEY = "surface"


def traits(response: str) -> list[str]:
    """Returns the traits of a response: "list" (two items or more) and "markdown" (a heading, bold words, a
    code fence or a table row).
    """
    found = {"list": len(_LIST.findall(response)) >= 2, "markdown": bool(_MARKDOWN.search(response))}
    return [name for name in TRAITS if found[name]]


@dataclasses.dataclass(frozen=True)
class Surface:
    """Lengths and traits of the texts of a comparison, which the metrics of bias use.

    Attributes:
      length_a, length_b: characters of the responses.
      traits_a, traits_b: their traits.
      content: sha256 of instruction and responses.
    """

    length_a: int
    length_b: int
    traits_a: list[str] = dataclasses.field(default_factory=list)
    traits_b: list[str] = dataclasses.field(default_factory=list)
    content: str = ""

    @property
    def longer(self) -> Label | None:
        """The longer response, or None if both are equally long."""
        if self.length_a == self.length_b:
            return None
        return "A" if self.length_a > self.length_b else "B"

    def having(self, trait: str) -> Label | None:
        """Returns the only response with a trait, or None."""
        has_a, has_b = trait in self.traits_a, trait in self.traits_b
        if has_a == has_b:
            return None
        return "A" if has_a else "B"


def surface_of(comparison: Comparison) -> Surface:
    """Returns the surface of a comparison, also of one whose texts were left out of a result file."""
    stored = comparison.metadata.get(SURFACE_KEY)
    if stored is not None:
        return Surface(**stored)
    return Surface(
        length_a=len(comparison.response_a),
        length_b=len(comparison.response_b),
        traits_a=traits(comparison.response_a),
        traits_b=traits(comparison.response_b),
        content=digest([comparison.instruction, comparison.response_a, comparison.response_b]),
    )


def without_texts(comparison: Comparison) -> dict[str, Any]:
    """Returns a comparison as a JSON-ready dict without its texts, but with their surface."""
    value = comparison.to_json()
    for name in ("instruction", "response_a", "response_b", "reference", "texts", "metadata"):
        value.pop(name, None)
    return value | {SURFACE_KEY: dataclasses.asdict(surface_of(comparison))}


def from_stored(value: dict[str, Any]) -> Comparison:
    """Builds the comparison of a dict that `without_texts` made; its texts are empty.

    Raises:
      ValueError: a field is missing, unknown or of another type.
    """
    key = SURFACE_KEY if SURFACE_KEY in value else _OLD_KEY
    fields = {name: item for name, item in value.items() if name != key}
    surface = build(Surface, value.get(key))
    texts = dict.fromkeys(("instruction", "response_a", "response_b"), "")
    metadata = {SURFACE_KEY: dataclasses.asdict(surface)}
    return build(Comparison, {**fields, **texts, "metadata": metadata})
