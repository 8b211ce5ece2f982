"""Text from files, made safe to show on a terminal or in a log."""

import unicodedata

_KEPT = "\n\t"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories without a shape: control and format characters, halves of surrogate pairs, other line ends."""


def printable(text: str) -> str:
    r"""Write out characters that a terminal would obey instead of showing: ``\x1b`` for escape, and so on.

    Args:
        text: Any text. Line ends and tabs stay.

    Returns:
        The text, without control and format characters (ANSI sequences, directions of writing, lone surrogates).
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if character not in _KEPT and unicodedata.category(character) in _HIDDEN
        else character
        for character in text
    )
