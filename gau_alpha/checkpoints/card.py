"""Model cards: the ``README.md`` of a Hugging Face folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gau_alpha.config import GAUAlphaConfig
from gau_alpha.method import AttentionMethod

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

    Raises:
        ValueError: If ``results`` is no such file, or ``licence`` is not one plain word.
    """
    if not licence or not licence.replace("-", "").replace(".", "").isalnum():
        raise ValueError(f"licence must be an identifier such as apache-2.0 or unknown, got {licence!r}.")
    cls = "GAUAlphaForMaskedLM" if head is None else str(head["class_path"]).rpartition(".")[2]
    task, tags = TASKS.get(cls, (None, "gau-alpha"))
    module = "gau_alpha" if head is None else "gau_alpha.heads"
    lines = [
        "---",
        f"license: {licence}",
        *([f"pipeline_tag: {task}"] if task else []),
        f"tags: [{tags}, length-extrapolation]",
        "---",
        "",
        f"# {title}",
        "",
        f"GAU-α, {config.num_hidden_layers} layers, hidden size {config.hidden_size}, {config.vocab_size} tokens.",
        "",
        "| axis | strategy |",
        "|---|---|",
        *(f"| {axis} | `{strategy!r}` |" for axis, strategy in method.axes()),
        "",
        f"Trained on rows of {train_length} tokens (`train_length`)."
        if train_length
        else "The length of its training rows is not recorded.",
    ]
    if data:
        parts = [f"{name}: `{class_path}`" for name, class_path in _classes(data)]
        lines += ["", f"Data: {', '.join(parts)}."] if parts else []
    if results is not None:
        lines += ["", "## Past its training length", "", *_table(results)]
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


def _table(path: Path) -> list[str]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        cells = {(row["method"], row["length"]): _cell(row) for row in rows}
        protocols = sorted({row["protocol"] for row in rows})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no extrapolation.json as `gau-alpha extrapolate` writes it: {error!r}.") from error
    methods = list(dict.fromkeys(method for method, _ in cells))
    lengths = sorted({length for _, length in cells})
    return [
        f"Perplexity by evaluated length in tokens, protocol {', '.join(protocols)}.",
        "",
        f"| method | {' | '.join(map(str, lengths))} |",
        f"|---|{'---|' * len(lengths)}",
        *(f"| {method} | {' | '.join(cells.get((method, length), '') for length in lengths)} |" for method in methods),
    ]


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['perplexity']:.2f}" if row["status"] == "ok" else str(row["status"])
