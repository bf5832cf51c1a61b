"""What a response looks like, apart from what it says: the outer traits that judges may fall for."""

import re

_LIST = re.compile(r"^[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])[ \t]+\S", re.M)
_MARKDOWN = re.compile(r"^#{1,6} \S|^[ \t]*```|\*\*[^*\n]+\*\*|^\|.*\|[ \t]*$", re.M)
TRAITS = ("list", "markdown")


def traits(response: str) -> list[str]:
    """Returns the traits of a response: "list" (two items or more) and "markdown" (a heading, bold words, a
    code fence or a table row).
    """
    found = {"list": len(_LIST.findall(response)) >= 2, "markdown": bool(_MARKDOWN.search(response))}
    return [name for name in TRAITS if found[name]]
