"""Text from files, made safe for a terminal, a log and the files that we write: it is shown, never obeyed."""

import re
import unicodedata
from html import escape

_KEPT = "\n\t"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories without a shape: control and format characters, halves of surrogate pairs, other line ends."""

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\symbol{34}",  # \textquotedbl exists in few font encodings
        "[": "{[}",  # at the beginning of a line these two would belong to the \\ of the line above
        "*": "{*}",
        "×": r"$\times$",
    }
)
# < and & as entities: not every reader of Markdown knows a backslash before them.
_MARKDOWN = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", **{mark: f"\\{mark}" for mark in "\\`*[]|~$#"}})
_EMPHASIS = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # an underscore between letters is none
_ADDRESS = re.compile(r":(?=//)|(?<=www)\.", re.IGNORECASE)  # what GitHub makes a link of by itself


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


def one_line(text: str) -> str:
    r"""Write out control characters, and line ends and tabs too, as ``\n`` and ``\t``.

    Args:
        text: Any text.
    """
    return printable(text).replace("\n", r"\n").replace("\t", r"\t")


def for_html(text: str) -> str:
    """Escape text for HTML, between tags or in an attribute.

    Args:
        text: Any text.
    """
    return escape(one_line(text))


def for_csv(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would take for a formula.

    Args:
        text: Any text; line ends stay, for ``csv`` quotes them.
    """
    text = printable(text)
    return f"'{text}" if text.startswith("\t") or text.lstrip().startswith(_FORMULA) else text


def for_latex(text: str) -> str:
    """Escape text for LaTeX, in a cell of a table or in a comment.

    Args:
        text: Any text.
    """
    return one_line(text).translate(_LATEX)


def for_markdown(text: str) -> str:
    """Escape text for Markdown, in a cell of a table or within a line: no markup, HTML, formula or link comes of it.

    Args:
        text: Any text.
    """
    text = _EMPHASIS.sub(r"\\_", one_line(text).translate(_MARKDOWN))
    return _ADDRESS.sub(lambda found: f"&#{ord(found[0])};", text)


def code_for_markdown(text: str) -> str:
    """Set text as code, where that can hold it whatever the reader of Markdown, else escape it as text.

    Args:
        text: Any text.
    """
    text = one_line(text)
    return f"`{text}`" if text.strip() and not set(text) & set("`|\\") else for_markdown(text)
