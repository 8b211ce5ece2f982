from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from datamodules import ByteTokenizer, TextDataModule, TextFiles

TEXT = "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs, [MASK] or not."


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """40 documents of 20 to 215 bytes (the third is empty): rows of several sizes, tails, a document without a row."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i:02}.txt").write_text("" if i == 2 else f"{i} {TEXT * 3}"[: 20 + 5 * i])
    return folder


@pytest.fixture
def make_data(corpus: Path, tmp_path: Path) -> Callable[..., TextDataModule]:
    def make(**changes) -> TextDataModule:
        arguments = {
            "source": TextFiles(str(corpus)),
            "tokenizer": ByteTokenizer(),
            "train_length": 32,
            "batch_size": 8,
            "cache_dir": str(tmp_path / "cache"),
        }
        return TextDataModule(**(arguments | changes))

    return make


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Callable[[str], str]:
    """Train a tokenizer of the given kind and return the path of its file."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

    def make(kind: str) -> str:
        if kind == "WordPiece":
            tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
            tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
            tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
            trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
        elif kind == "BPE":
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            trainer = trainers.BpeTrainer(
                vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
            )
        elif kind == "Unigram":
            tokenizer = Tokenizer(models.Unigram())
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
            trainer = trainers.UnigramTrainer(vocab_size=100, special_tokens=special, unk_token="[UNK]")
        else:
            tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
            tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
            trainer = trainers.WordLevelTrainer(vocab_size=300, special_tokens=special)
        tokenizer.train_from_iterator([TEXT, TEXT.lower()], trainer)
        # What released tokenizers come with, and what must not touch a corpus:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        )
        tokenizer.enable_truncation(max_length=8)
        tokenizer.enable_padding(length=16)
        path = str(tmp_path / f"{kind}.json")
        tokenizer.save(path)
        return path

    return make
