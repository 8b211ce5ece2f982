"""Model cards: the ``README.md`` of a Hugging Face folder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.untrusted.escaping import code_for_markdown, for_markdown
from gau_alpha.untrusted.reading import read_json
from gau_alpha.untrusted.registry import Registry, shown

CARD = "README.md"
"""The file of a model card."""

TASKS = {
    "GAUAlphaForMaskedLM": ("fill-mask", "gau-alpha, masked-lm"),
    "GAUAlphaForSequenceClassification": ("text-classification", "gau-alpha"),
    "GAUAlphaForTokenClassification": ("token-classification", "gau-alpha"),
    "GAUAlphaForMultipleChoice": ("multiple-choice", "gau-alpha"),
    "GAUAlphaForQuestionAnswering": ("question-answering", "gau-alpha"),
}
"""Model class → what the Hugging Face hub calls its task, and tags."""


def model_card(
    title: str,
    config: GAUAlphaConfig,
    method: AttentionMethod,
    train_length: int | None = None,
    licence: str = "unknown",
    data: Mapping[str, Any] | None = None,
    results: Path | None = None,
    head: Mapping[str, Any] | None = None,
    sha256: str | None = None,
) -> str:
    """Write a model card in Markdown.

    Args:
        title: What the model is called.
        config: Its sizes.
        method: Its attention method.
        train_length: Tokens per training row, if known.
        licence: An identifier as the Hugging Face hub knows it, such as ``apache-2.0``; goes into the field
            ``license``.
        data: The section ``data`` of the run's config, if known. Classes are named, paths are not: they are nobody
            else's business.
        results: An ``extrapolation.json`` whose perplexities make a table, if there is one.
        head: The head's class and its own arguments; None: the masked-language-model head.
        sha256: Of the checkpoint: only what was measured on it comes into the table. None: all results.

    Raises:
        ValueError: If ``results`` is no such file, ``licence`` is not one plain word, or the head's class no name.
    """
    if not licence or not licence.replace("-", "").replace(".", "").isalnum():
        raise ValueError(f"licence must be an identifier such as apache-2.0 or unknown, got {licence!r}.")
    cls = "GAUAlphaForMaskedLM" if head is None else str(head["class_path"]).rpartition(".")[2]
    if not cls.isidentifier():
        raise ValueError(f"The head's class_path must end in the name of a class, got {shown(cls)}.")
    task, tags = TASKS.get(cls, (None, "gau-alpha"))
    module = "gau_alpha" if head is None else "gau_alpha.finetuning"
    lines = [
        "---",
        f"license: {licence}",
        *([f"pipeline_tag: {task}"] if task else []),
        f"tags: [{tags}, length-extrapolation]",
        "---",
        "",
        f"# {for_markdown(title)}",
        "",
        f"GAU-α, {config.num_hidden_layers} layers, hidden size {config.hidden_size}, {config.vocab_size} tokens.",
        "",
        "| axis | strategy |",
        "|---|---|",
        *(f"| {axis} | {code_for_markdown(repr(strategy))} |" for axis, strategy in method.axes()),
        *([f"| in turns | {code_for_markdown(repr(method.turns))} |"] if method.turns else []),
        "",
        f"Trained on rows of {train_length} tokens (`train_length`)."
        if train_length
        else "The length of its training rows is not recorded.",
    ]
    if data:
        parts = [f"{for_markdown(name)}: {code_for_markdown(class_path)}" for name, class_path in _classes(data)]
        lines += ["", f"Data: {', '.join(parts)}."] if parts else []
    if results is not None and (table := _table(results, sha256)):
        lines += ["", "## Past its training length", "", *table]
    lines += [
        "",
        "```python",
        f"from {module} import {cls}",
        "",
        f'model = {cls}.from_pretrained("this/folder")',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _classes(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    arguments = data.get("init_args")
    parts = {"module": data, **(arguments if isinstance(arguments, Mapping) else {})}
    named = ((name, part if isinstance(part, Mapping) else {}) for name, part in parts.items())
    return [(name, str(part["class_path"])) for name, part in named if "class_path" in part]


@dataclass(frozen=True)
class _Result:
    """What is shown of a row of an ``extrapolation.json``; null is a perplexity that no float can hold."""

    method: str
    length: int
    protocol: str
    status: str
    perplexity: float | None
    note: str = ""


def _table(path: Path, sha256: str | None) -> list[str]:
    content = read_json(path)
    try:
        rows = content.get("rows") if isinstance(content, dict) else None
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise ValueError('it must be an object in which "rows" is a list of objects.')
        results = [_result(row, f"rows[{i}]") for i, row in enumerate(rows)]
    except ValueError as error:
        raise ValueError(f"{path} is no extrapolation.json as `gau-alpha extrapolate` writes it: {error}") from error
    if sha256 is not None:
        measured = _mapping(_mapping(content.get("run")).get("checkpoints_sha256"))
        results = [one for one in results if measured.get(one.method) == sha256]
    results = [one for one in results if one.protocol not in ("copy", "recall")]  # which have distances
    results = [one for one in results if one.protocol == results[0].protocol]
    if not results:
        return []
    cells = {(one.method, one.length): _cell(one) for one in results}
    methods = list(dict.fromkeys(one.method for one in results))
    lengths = sorted({one.length for one in results})
    return [
        f"Perplexity by evaluated length in tokens, protocol {for_markdown(results[0].protocol)}.",
        "",
        f"| method | {' | '.join(map(str, lengths))} |",
        f"|---|{'---|' * len(lengths)}",
        *(
            f"| {for_markdown(method)} | {' | '.join(cells.get((method, length), '') for length in lengths)} |"
            for method in methods
        ),
        *_notes(results),
    ]


def _notes(results: list[_Result]) -> list[str]:
    """Say what speaks against quoting a method's numbers beside the others: a line for each."""
    notes: dict[str, dict[str, None]] = {}
    for one in results:
        if one.note:
            notes.setdefault(one.method, {})[one.note] = None
    lines = [f"- {for_markdown(method)}: {for_markdown('; '.join(said))}" for method, said in notes.items()]
    return ["", *lines] if lines else []


def _mapping(content: object) -> Mapping[str, Any]:
    return content if isinstance(content, Mapping) else {}


def _result(row: Mapping[str, Any], where: str) -> _Result:
    stored = {name: value for name, value in row.items() if name in _Result.__dataclass_fields__}
    known = _Result(**Registry({}).arguments(_Result, stored, where))
    if not 1 <= known.length <= 2**53:
        raise ValueError(f"{where}.length must be a number of tokens, got {shown(known.length)}.")
    if known.perplexity is not None and not math.isfinite(known.perplexity):
        raise ValueError(f"{where}.perplexity must be a finite number, or null, got {known.perplexity}.")
    return known


def _cell(one: _Result) -> str:
    if one.status != "ok":
        return for_markdown(one.status)
    if one.perplexity is None:
        return ""
    return f"{one.perplexity:.2f}" if one.perplexity < 1e6 else f"{one.perplexity:.1e}"
