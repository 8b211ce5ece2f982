"""BERT's vocabularies: a token per line."""

import hashlib
import re

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from datamodules.arguments import require_kind, shown
from datamodules.files import existing_file, read_lines
from datamodules.tokenizers.library import LibraryTokenizer, refusing_library

_NAME = re.compile(r"\[[^\[\]]+\]|<[^<>]+>")
"""How special tokens are written: ``[CLS]``, ``[unused7]``, ``<S>``. Text is split at brackets, so it gives none."""
_LONGEST_WORD = 100  # BERT's own limit


class WordPieceVocab(LibraryTokenizer):
    """A BERT-style ``vocab.txt``: a token per line, numbered from 0, parts of words marked with ``##``.

    Text is split as BERT splits it: at spaces and punctuation, and around every Chinese character. A word that can't
    be put together from tokens, or has more than 100 letters, is unknown.

    Args:
        path: The vocabulary.
        lowercase: Whether text is lower-cased and accents are dropped; must be as it was for the vocabulary.
        mask_token: Name of the token that hides what the model has to predict.
        pad_token: Name of the token that fills rows.
        unknown_token: Name of the token for words that the vocabulary does not cover.

    Raises:
        ValueError: If there is no such file, a line is empty or stands twice, or it lacks a special token.
    """

    def __init__(
        self,
        path: str,
        lowercase: bool = True,
        mask_token: str = "[MASK]",
        pad_token: str = "[PAD]",
        unknown_token: str = "[UNK]",
    ) -> None:
        require_kind(bool, lowercase=lowercase)
        require_kind(str, unknown_token=unknown_token)
        file = existing_file(path, "a vocab.txt: a token per line")
        tokens: dict[str, int] = {}
        for number, token, _ in read_lines(file, "utf-8"):
            if not token or token in tokens:
                what = f"{shown(token)} is already on line {tokens[token] + 1}" if token else "is blank"
                raise ValueError(
                    f"{file}, line {number}: {what}, but every line must be a token of its own, since its number is "
                    "the token's id. Correct the line."
                )
            tokens[token] = number - 1
        if unknown_token not in tokens:
            raise ValueError(
                f"unknown_token={shown(unknown_token)} is not in the vocabulary of {path!r}; its names in brackets are "
                f"{shown([token for token in tokens if _NAME.fullmatch(token)])}. Set `unknown_token` to one of them."
            )
        self.lowercase = lowercase
        self.unknown_token = unknown_token
        self._content = "\n".join(tokens)
        with refusing_library(path):
            tokenizer = tokenizers.Tokenizer(
                models.WordPiece(tokens, unk_token=unknown_token, max_input_chars_per_word=_LONGEST_WORD)
            )
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        special = {token: number for token, number in tokens.items() if _NAME.fullmatch(token)}
        super().__init__(tokenizer, path, special, mask_token, pad_token)

    def fingerprint(self) -> str:
        """Hash the vocabulary and the options."""
        options = f"WordPieceVocab {self.lowercase} {self.mask_token} {self.pad_token} {self.unknown_id} "
        return hashlib.sha256((options + self._content).encode()).hexdigest()
