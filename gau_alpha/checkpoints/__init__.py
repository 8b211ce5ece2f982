"""Models in files: Hugging Face folders and Lightning checkpoints. Everything is read as data; nothing is executed.

``fields.py`` knows ``config.json``, ``head_fields.py`` what it says of heads, ``tensors.py`` the files of weights,
``folders.py`` puts them together. ``training.py`` reads Lightning checkpoints, ``training_state.py`` holds what
Lightning restores against what it writes, ``checksum.py`` knows their checksum, ``io.py`` writes them for Lightning.
``evaluated.py`` lets a folder be evaluated as if it were one. ``identity.py`` is what a checkpoint says of its making;
``warm_start.py`` starts a model from any of them; ``tokenizer.py`` and ``card.py`` write what else a folder holds.
``transformers.py`` lets the Auto classes of ``transformers``, where that is installed, open such folders.
"""

from gau_alpha.checkpoints.card import CARD, model_card
from gau_alpha.checkpoints.checksum import append_checksum, find_corruption
from gau_alpha.checkpoints.evaluated import is_folder, read_evaluated, read_evaluated_hashed, tokenizer_files_in
from gau_alpha.checkpoints.fields import METHOD_KEY
from gau_alpha.checkpoints.folders import (
    Stored,
    empty_init,
    folder_config,
    folder_head,
    load_folder,
    read_folder,
    save_folder,
    write_folder,
)
from gau_alpha.checkpoints.identity import RUN_KEY, TOKENIZER_KEY, recipe, recipe_digest, tokenizer_fingerprint
from gau_alpha.checkpoints.tensors import HEAD, WEIGHTS, check_fit, load_plain, load_weights
from gau_alpha.checkpoints.tokenizer import (
    SPECIAL,
    TOKENIZER,
    VOCABULARY,
    fast_tokenizer_files,
    same_files,
    tokenizer_files,
    vocabulary_as_json,
)
from gau_alpha.checkpoints.training import (
    MODEL_PREFIX,
    MODELS,
    model_of,
    plain_names,
    read_checkpoint,
    read_training_state,
)
from gau_alpha.checkpoints.training_state import check_form, check_training_state
from gau_alpha.checkpoints.warm_start import warm_start, warm_start_with_head

__all__ = [
    "CARD",
    "HEAD",
    "METHOD_KEY",
    "MODELS",
    "MODEL_PREFIX",
    "RUN_KEY",
    "SPECIAL",
    "TOKENIZER",
    "TOKENIZER_KEY",
    "VOCABULARY",
    "WEIGHTS",
    "Stored",
    "append_checksum",
    "check_fit",
    "check_form",
    "check_training_state",
    "empty_init",
    "fast_tokenizer_files",
    "find_corruption",
    "folder_config",
    "folder_head",
    "is_folder",
    "load_folder",
    "load_plain",
    "load_weights",
    "model_card",
    "model_of",
    "plain_names",
    "read_checkpoint",
    "read_evaluated",
    "read_evaluated_hashed",
    "read_folder",
    "read_training_state",
    "recipe",
    "recipe_digest",
    "same_files",
    "save_folder",
    "tokenizer_files",
    "tokenizer_files_in",
    "tokenizer_fingerprint",
    "vocabulary_as_json",
    "warm_start",
    "warm_start_with_head",
    "write_folder",
]
