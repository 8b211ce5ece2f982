"""Tables for papers: LaTeX with the package booktabs."""

from collections.abc import Sequence


def booktabs(
    heading: Sequence[str], blocks: Sequence[Sequence[Sequence[str]]], caption: str, label: str, notes: Sequence[str]
) -> str:
    r"""A ``table`` with rules above, below, and between its blocks; it needs ``\usepackage{booktabs}``.

    All texts are LaTeX: who calls escapes what others wrote.

    Args:
        heading: Of the columns; the first is set left, numbers right.
        blocks: Lines of cells, a rule between one block and the next.
        caption: Above the table.
        label: For ``\ref``.
        notes: Lines in small print below.
    """
    body: list[str] = []
    for block in blocks:
        body += [r"    \midrule", *(f"    {' & '.join(line)} \\\\" for line in block)]
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{caption}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(heading) - 1)}}}",
        r"    \toprule",
        f"    {' & '.join(heading)} \\\\",
        *body,
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par\footnotesize {note}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
