"""The tokenizer's files in a Hugging Face folder.

What is known of a tokenizer here is what it shows in public: ``path``, ``mask_token``, ``pad_token``, ``vocabulary``
and ``fingerprint()``. Its class belongs to the data.
"""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

TOKENIZER = "tokenizer.json"
"""The file of a whole tokenizer, as ``tokenizers`` writes it."""

VOCABULARY = "vocab.txt"
"""The file of a BERT vocabulary, a token per line."""

SPECIAL = "tokenizer_config.json"
"""The file that names special tokens."""

_BYTES = "ByteTokenizer utf-8"


def tokenizer_files(tokenizer: Any) -> dict[str, str]:
    """Write a tokenizer as the files that other software reads.

    Args:
        tokenizer: A tokenizer of a data module.

    Returns:
        Text by file name: ``tokenizer.json`` or ``vocab.txt``, and ``tokenizer_config.json`` with the names of special
        tokens. Empty for a tokenizer that has no file and is not the one of bytes.
    """
    special: dict[str, Any] = {
        "mask_token": getattr(tokenizer, "mask_token", "[MASK]"),
        "pad_token": getattr(tokenizer, "pad_token", "[PAD]"),
    }
    if hasattr(tokenizer, "lowercase"):
        special |= {"do_lower_case": tokenizer.lowercase, "unk_token": tokenizer.unknown_token}
    names = {SPECIAL: json.dumps(special, indent=2) + "\n"}
    path = Path(getattr(tokenizer, "path", "")).expanduser()
    if path.suffix in (".json", ".txt") and path.is_file():
        return {TOKENIZER if path.suffix == ".json" else VOCABULARY: path.read_text(encoding="utf-8"), **names}
    if tokenizer.fingerprint() == _BYTES:
        return {TOKENIZER: byte_tokenizer().to_str(pretty=True), **names}
    return {}


def byte_tokenizer() -> tokenizers.Tokenizer:
    """Build the tokenizer of bytes in the form of the ``tokenizers`` library: ids 0 to 255, then padding and mask."""
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=_letters(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["[PAD]", "[MASK]"])
    return tokenizer


def _letters() -> dict[str, int]:
    """Number the letters that the library's ByteLevel writes bytes as: themselves where they show, else from 256 on."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in shown}
    hidden = [byte for byte in range(256) if byte not in shown]
    return letters | {chr(256 + number): byte for number, byte in enumerate(hidden)}
