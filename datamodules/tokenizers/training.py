"""Tokenizers learned from a corpus, by the trainers of the ``tokenizers`` library."""

import re
import sys
from collections.abc import Iterator

import tokenizers
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from datamodules.sources import TextSource

KINDS = ("bpe", "wordpiece", "unigram")
"""Kinds of tokenizer that can be trained."""

PAD, UNKNOWN, MASK = "[PAD]", "[UNK]", "[MASK]"
_BYTES = 256
_WORD_CHARACTERS = 1_000
_LONG_WORD = re.compile(rf"\S{{{_WORD_CHARACTERS + 1},}}")
_PIECE_CHARACTERS = 1_000_000  # a longer document is given to the trainer in pieces, cut at spaces


def train_tokenizer(source: TextSource, kind: str, vocab_size: int, lowercase: bool = False) -> tokenizers.Tokenizer:
    """Learn a vocabulary.

    Only ``bpe`` learns the same from the same text every time: the library's other trainers break ties at random.

    Args:
        source: The text.
        kind: ``bpe`` on bytes (nothing is unknown), ``wordpiece`` as in BERT, or ``unigram`` as in SentencePiece. On
            text without spaces, such as DNA, ``unigram`` takes two minutes per million letters, a hundred times as
            long as ``bpe``: it weighs every cut of each different word, and there no two words are alike.
        vocab_size: Number of tokens at most, special ones included.
        lowercase: Whether text is lower-cased (and, for ``wordpiece``, accents are dropped) before it is split.

    Raises:
        ValueError: If the kind is unknown, the size too small for it, or the source has no text.
    """
    least = _BYTES + 2 if kind == "bpe" else 4
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} must be one of {list(KINDS)}.")
    if vocab_size < least:
        raise ValueError(
            f"vocab_size={vocab_size} must be at least {least} for {kind}: its special tokens"
            + (", the 256 bytes" if kind == "bpe" else " and one more")
            + ". Raise it."
        )
    tokenizer, trainer = {"bpe": _bpe, "wordpiece": _wordpiece, "unigram": _unigram}[kind](vocab_size, lowercase)
    has_text = is_told = False

    def texts() -> Iterator[str]:
        nonlocal has_text, is_told
        for document in source.documents():
            has_text = has_text or bool(document.strip())
            if kind == "unigram" and not is_told and _LONG_WORD.search(document):
                is_told = True
                rank_zero_warn(
                    f"The text has runs of over {_WORD_CHARACTERS:,} letters without a space: unigram takes about two "
                    "minutes per million letters of such text, bpe a second or two."
                )
            yield from _pieces(document)

    tokenizer.train_from_iterator(texts(), trainer)
    if not has_text:
        raise ValueError(f"{type(source).__name__} yields no text to learn from. Give a source with text in it.")
    size = tokenizer.get_vocab_size()
    if size > vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is below {size}, the number of different letters in the text and special tokens, "
            f"which {kind} keeps all. Raise it, or use bpe, which builds letters from bytes."
        )
    if size < vocab_size:
        rank_zero_warn(f"The text gives only {size} tokens, fewer than vocab_size={vocab_size}.")
    return tokenizer


def _pieces(document: str) -> Iterator[str]:
    """Cut at spaces, and runs of letters without any, such as DNA: a trainer's time grows with the square of a word."""
    start = 0
    while len(document) - start > _PIECE_CHARACTERS:
        space = document.rfind(" ", start + 1, start + _PIECE_CHARACTERS)
        stop = space if space > 0 else start + _PIECE_CHARACTERS
        yield from _without_long_words(document[start:stop])
        start = stop
    yield from _without_long_words(document[start:])


def _without_long_words(text: str) -> Iterator[str]:
    start = 0
    for run in _LONG_WORD.finditer(text):
        for stop in range(run.start() + _WORD_CHARACTERS, run.end(), _WORD_CHARACTERS):
            yield text[start:stop]
            start = stop
    yield text[start:]


def _bpe(vocab_size: int, lowercase: bool) -> tuple[tokenizers.Tokenizer, trainers.Trainer]:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [PAD, MASK]
    return tokenizer, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=sys.stderr.isatty()
    )


def _wordpiece(vocab_size: int, lowercase: bool) -> tuple[tokenizers.Tokenizer, trainers.Trainer]:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = [PAD, UNKNOWN, MASK]
    return tokenizer, trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=special, show_progress=sys.stderr.isatty()
    )


def _unigram(vocab_size: int, lowercase: bool) -> tuple[tokenizers.Tokenizer, trainers.Trainer]:
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    steps: list[normalizers.Normalizer] = [normalizers.NFKC()]
    if lowercase:
        steps.append(normalizers.Lowercase())
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = [PAD, UNKNOWN, MASK]
    return tokenizer, trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token=UNKNOWN, show_progress=sys.stderr.isatty()
    )
