"""Text from files and other untrusted sources, made safe for a terminal.

A terminal obeys control characters: they move the cursor, change the title, or write to the clipboard.
Format characters reorder what is shown (bidirectional controls) or hide in it. Everything that is printed and
may hold text of others goes through this module, above all the lines of errors and logs.
"""

import unicodedata

# Control and format characters, half surrogate pairs, and the separators of lines and paragraphs.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_MAX_CHARACTERS = 4000
# Shown in a table in place of a hidden character, so that a cell keeps its width.
_REPLACEMENT = "\ufffd"


def visible(text: str, keep: str = "\n\t") -> str:
    r"""Returns `text` with escapes such as `\x1b` in place of control and format characters.

    Args:
      text: any text.
      keep: characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if c not in keep and unicodedata.category(c) in _HIDDEN else c
        for c in text
    )


def visible_message(text: str) -> str:
    """Returns a message for the terminal: `visible`, of limited length, its further lines indented.

    No text in a message can thus begin a line that looks like one of ours.
    """
    if len(text) > _MAX_CHARACTERS:
        text = f"{text[:_MAX_CHARACTERS]}... ({len(text) - _MAX_CHARACTERS} more characters)"
    first, *rest = visible(text).split("\n")
    return "\n".join([first, *(line if line.startswith("  ") else f"  {line}" for line in rest)])


def visible_cell(text: str) -> str:
    """Returns text for a cell of a table: one character in place of each control and format character."""
    if text.isprintable():
        return text
    return "".join(_REPLACEMENT if unicodedata.category(c) in _HIDDEN else c for c in text)
