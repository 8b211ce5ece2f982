"""What a checkpoint says of its making: which training and which tokenizer its weights come from."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from gau_alpha.checkpoints.chosen_weights import held_weights

RUN_KEY = "run"
"""The entry of a checkpoint that holds the run's id, resolved config, its tokenizer's files and surroundings."""

TOKENIZER_KEY = "tokenizer_fingerprint"
"""The entry of the run's record that tells tokenizers apart by what they do, not by where they lie."""

SPLITS_KEY = "splits"
"""The entry of the run's record that lists by which rules documents were held out, in all training of the weights:
that of the run itself, of what it was started from, and of its own past. None stands for a rule that is not known."""

STARTED_FROM_KEY = "started_from"
"""The entry of the run's record that says which weights training began with."""

SEEN_KEY = "seen"
"""The entry of the run's record that counts what the run has trained on."""

_NO_RECIPE = {"seed", "seed_everything", "cache_dir", "num_workers", "init_from", "activation_checkpointing", "kernel"}
"""Settings that tell two runs of one recipe apart, or change no number: seeds, places, speed."""

_TRAINER = ("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "precision")
"""What of the Trainer's settings a step of training depends on."""

TRAINING_DATA = "training_data.json"
"""The file of a Hugging Face folder that says what its weights were trained on."""

SHORT = 24
"""Characters at most of a fingerprint that is no hash."""


def tokenizer_fingerprint(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the fingerprint of the tokenizer that a run trained with; None if the checkpoint does not say.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
    """
    found = _section(checkpoint, RUN_KEY).get(TOKENIZER_KEY)
    return found if isinstance(found, str) else None


def recipe(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what two checkpoints have in common if they differ in nothing but seeds and names.

    Args:
        checkpoint: What ``read_checkpoint`` returned.

    Returns:
        Plain data: optimizer steps, which weights, hyperparameters, and, where the run left its record, data,
        tokenizer, batches and processes.
    """
    run = _section(checkpoint, RUN_KEY)
    config = _section(run, "config")
    trainer = _section(config, "trainer")
    return {
        "steps": checkpoint.get("global_step"),
        "weights": held_weights(checkpoint),
        "hyper_parameters": _without(checkpoint.get("hyper_parameters")),
        "data": _without(config.get("data")),
        "tokenizer": run.get(TOKENIZER_KEY),
        "started_from": _section(run, STARTED_FROM_KEY).get("recipe"),
        "trainer": {name: trainer.get(name) for name in _TRAINER},
        "processes": _section(run, "world").get("processes"),
    }


def has_recipe(checkpoint: Mapping[str, Any]) -> bool:
    """Say whether a checkpoint holds the record of a run, without which ``recipe`` knows too little.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
    """
    return bool(_section(_section(checkpoint, RUN_KEY), "config"))


def recipe_digest(checkpoint: Mapping[str, Any]) -> str:
    """Hash ``recipe``.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
    """
    text = json.dumps(recipe(checkpoint), sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _section(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = content.get(name)
    return section if isinstance(section, Mapping) else {}


def _without(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _without(value) for name, value in content.items() if name not in _NO_RECIPE}
    return [_without(value) for value in content] if isinstance(content, list | tuple) else content


def tokenizer_label(datamodule: Any, checkpoint: Mapping[str, Any] | None = None) -> str:
    """Name what tokens are counted in: short, and the same for the same tokenizer. Empty for data without one.

    Args:
        datamodule: The data module.
        checkpoint: One that was trained with this tokenizer, perhaps under another name.
    """
    tokenizer = getattr(datamodule, "tokenizer", None)
    if tokenizer is None:
        return ""
    fingerprint = (tokenizer_fingerprint(checkpoint) if checkpoint else None) or tokenizer.fingerprint()
    return fingerprint if len(fingerprint) <= SHORT else f"tokenizer {fingerprint[:12]}"
