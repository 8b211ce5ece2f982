"""The fields of ``config.json`` that speak of a head for fine-tuning.

Other software knows ``id2label``, ``label2id``, ``classifier_dropout`` and ``summary_type``; the entry ``head`` says
the rest: the class, and all arguments of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gau_alpha.untrusted.registry import shown

HEAD_KEY = "head"
"""The entry of ``config.json`` that describes a head for fine-tuning: its class and its own arguments."""

PUBLISHED_ARGUMENTS = {"summary_type": "pooling", "classifier_dropout": "classifier_dropout"}
"""Published field → our argument."""


def head_fields(head: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Say in plain data what a head is, for ``config.json``.

    Args:
        head: Its class and its own arguments, as ``HeadedModel.describe_head`` gives them.
        labels: What it chooses from.
    """
    arguments = head["init_args"]
    return {
        **{field: arguments[name] for field, name in PUBLISHED_ARGUMENTS.items() if name in arguments},
        **({"id2label": {str(i): label for i, label in enumerate(labels)}} if labels else {}),
        **({"label2id": {label: i for i, label in enumerate(labels)}} if labels else {}),
        HEAD_KEY: dict(head),
    }


def head_class_in(stored: Mapping[str, Any]) -> str | None:
    """Take the name of the model's class from ``architectures``; None if it is not said."""
    named = stored.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else None


def head_arguments_in(stored: Mapping[str, Any], own_arguments: Sequence[str]) -> dict[str, Any]:
    """Take a head's own arguments from a ``config.json``, as far as it says them.

    Args:
        stored: What ``read_fields`` returned.
        own_arguments: Their names.

    Raises:
        ValueError: If the entry ``head`` is no description of a head.
    """
    published = {name: stored[field] for field, name in PUBLISHED_ARGUMENTS.items() if stored.get(field) is not None}
    entry = stored.get(HEAD_KEY, {"init_args": {}})
    if not isinstance(entry, Mapping) or not isinstance(entry.get("init_args"), Mapping):
        raise ValueError(f"config.json: {HEAD_KEY} must give a class_path and init_args, got {shown(entry)}.")
    said = {**published, **entry["init_args"]}
    for field, name in PUBLISHED_ARGUMENTS.items():
        if name in published and published[name] != said[name]:
            raise ValueError(
                f"config.json contradicts itself: {field} is {shown(published[name])}, but {HEAD_KEY} says {name} "
                f"{shown(said[name])}. Correct one of them."
            )
    return {name: value for name, value in said.items() if name in own_arguments}


def labels_in(stored: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Take labels from ``id2label``; None if it is missing.

    Args:
        stored: What ``read_fields`` returned.

    Raises:
        ValueError: If ids do not count 0, 1, 2, …, or ``label2id`` or ``num_labels`` say something else.
    """
    named = stored.get("id2label")
    if named is None:
        return None
    try:
        numbered = sorted((int(number), str(label)) for number, label in named.items())
    except (AttributeError, ValueError) as error:
        raise ValueError(f"config.json: id2label must give a label per number, got {shown(named)}.") from error
    labels = tuple(label for _, label in numbered)
    if [number for number, _ in numbered] != list(range(len(labels))):
        raise ValueError(f"config.json: the numbers in id2label must count 0, 1, 2, …, got {shown(named)}.")
    back = stored.get("label2id")
    if back is not None and back != {label: number for number, label in numbered}:
        raise ValueError(f"config.json contradicts itself: id2label is {shown(named)}, label2id {shown(back)}.")
    if stored.get("num_labels") not in (None, len(labels)):
        said = shown(stored["num_labels"])
        raise ValueError(f"config.json says num_labels {said}, but id2label names {len(labels)}.")
    return labels
