"""The tokenizer's files in a Hugging Face folder.

What is known of a tokenizer here is what it shows in public: ``path``, ``mask_token``, ``pad_token``, ``vocabulary``
and ``fingerprint()``. Its class belongs to the data.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

TOKENIZER = "tokenizer.json"
"""The file of a whole tokenizer, as ``tokenizers`` writes it."""

VOCABULARY = "vocab.txt"
"""The file of a BERT vocabulary, a token per line."""

SPECIAL = "tokenizer_config.json"
"""The file that names special tokens."""

SPECIAL_MAP = "special_tokens_map.json"
"""The file in which ``transformers`` names special tokens once more."""

_BYTES = "ByteTokenizer utf-8"
_CHARACTERS = "CharacterTokenizer "  # the alphabet follows
_ADDING = ("TemplateProcessing", "BertProcessing", "RobertaProcessing")
_ROLES = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
_LONGEST_WORD = 100  # BERT's own limit


def tokenizer_files(tokenizer: Any) -> dict[str, str]:
    """Write a tokenizer as the files that other software reads.

    Args:
        tokenizer: A tokenizer of a data module.

    Returns:
        Text by file name: ``tokenizer.json`` or ``vocab.txt``, and ``tokenizer_config.json`` with the names of special
        tokens. Empty for a tokenizer that has no file and is not one of bytes or characters.
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
    if tokenizer.fingerprint().startswith(_CHARACTERS):
        alphabet = tokenizer.fingerprint().removeprefix(_CHARACTERS)
        return {TOKENIZER: character_tokenizer(alphabet).to_str(pretty=True), **names}
    return {}


def fast_tokenizer_files(files: Mapping[str, str]) -> dict[str, str]:
    """Make of a tokenizer's files those that ``AutoTokenizer`` of ``transformers`` opens.

    It then encodes as training does: without tokens around a text, of which models that were trained here know nothing.
    A name of a special token in a text is that token there, as ``pipeline("fill-mask")`` wants it.

    Args:
        files: What ``tokenizer_files`` returned, or what a checkpoint carries: text by file name.

    Returns:
        The same, ``tokenizer.json`` in any case, and ``special_tokens_map.json``. Empty if there is no tokenizer.

    Raises:
        ValueError: If a file is no tokenizer.
    """
    if not files.keys() & {TOKENIZER, VOCABULARY}:
        return dict(files)
    settings = json.loads(files.get(SPECIAL, "{}"))
    text = files[TOKENIZER] if TOKENIZER in files else vocabulary_as_json(files)
    content = json.loads(text)
    if _adds_tokens(content.get("post_processor")):
        content["post_processor"] = None
        text = json.dumps(content, ensure_ascii=False, indent=2)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exceptions
        raise ValueError(f"{TOKENIZER} is no tokenizer of the `tokenizers` library: {error}") from error
    roles = {role: name for role, name in _ROLES.items() if tokenizer.token_to_id(name) is not None}
    special = {**roles, **{role: name for role, name in settings.items() if role.endswith("_token")}}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **settings,
        **special,
    }
    return {
        **files,
        TOKENIZER: text,
        SPECIAL: json.dumps(settings, indent=2) + "\n",
        SPECIAL_MAP: json.dumps(special, indent=2) + "\n",
    }


def same_files(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Say whether two sets of files are of one tokenizer, as ``tokenizer_files`` and a folder have them.

    Args:
        one: Text by file name.
        other: The same.
    """
    return _told(one) == _told(other) != {}


def _told(files: Mapping[str, str]) -> dict[str, Any]:
    """What decides of a tokenizer: its text, and the names of the tokens that stand for none."""
    name = VOCABULARY if VOCABULARY in files else TOKENIZER
    try:
        settings = json.loads(files.get(SPECIAL, "{}"))
    except ValueError:
        return {}
    if not isinstance(settings, dict) or name not in files:
        return {}
    marks = ("mask_token", "pad_token", *(("do_lower_case", "unk_token") if name == VOCABULARY else ()))
    return {name: files[name], **{mark: settings.get(mark) for mark in marks}}


def vocabulary_as_json(files: Mapping[str, str]) -> str:
    """Write a ``vocab.txt`` as a ``tokenizer.json``, which splits text as BERT does.

    Args:
        files: Text by file name; ``vocab.txt`` is among them.
    """
    settings = json.loads(files.get(SPECIAL, "{}"))
    tokens = {token: number for number, token in enumerate(files[VOCABULARY].split("\n")) if token}
    unknown = settings.get("unk_token", "[UNK]")
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece(tokens, unk_token=unknown, max_input_chars_per_word=_LONGEST_WORD)
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=settings.get("do_lower_case", True) is not False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    named = [settings.get("pad_token", "[PAD]"), settings.get("mask_token", "[MASK]"), unknown, *_ROLES.values()]
    tokenizer.add_special_tokens([name for name in dict.fromkeys(named) if name in tokens])
    return tokenizer.to_str(pretty=True)


def _adds_tokens(processor: object) -> bool:
    """Whether a post-processor of a ``tokenizer.json`` puts tokens around a text."""
    if not isinstance(processor, dict):
        return False
    return processor.get("type") in _ADDING or any(map(_adds_tokens, processor.get("processors", [])))


def byte_tokenizer() -> tokenizers.Tokenizer:
    """Build the tokenizer of bytes in the form of the ``tokenizers`` library: ids 0 to 255, then padding and mask."""
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=_letters(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["[PAD]", "[MASK]"])
    return tokenizer


def character_tokenizer(characters: str) -> tokenizers.Tokenizer:
    """Build the tokenizer of characters in the form of the ``tokenizers`` library: then padding, unknown and mask.

    Args:
        characters: The alphabet, in the order of its ids.
    """
    special = ("[PAD]", "[UNK]", "[MASK]")
    numbers = {piece: number for number, piece in enumerate((*characters, *special))}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def _letters() -> dict[str, int]:
    """Number the letters that the library's ByteLevel writes bytes as: themselves where they show, else from 256 on."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in shown}
    hidden = [byte for byte in range(256) if byte not in shown]
    return letters | {chr(256 + number): byte for number, byte in enumerate(hidden)}
