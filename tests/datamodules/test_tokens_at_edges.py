"""Tokens beside a mask, under a label and in a word without end, as training on whole texts has them."""

import time

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from datamodules import TokenizerFile
from datamodules.labelled import TokenExamples
from datamodules.labelled.frame import Frame
from datamodules.tokenizers.training import _pieces, train_tokenizer
from gau_alpha.cli.fill_mask import encode

TEXT = "the cat sat on a mat. the dog sat on the log, near a cat. (the end)"
SPECIAL = ["[PAD]", "[UNK]", "[MASK]"]


def metaspace(scheme):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return tokenizer, trainers.UnigramTrainer(vocab_size=60, special_tokens=SPECIAL, unk_token="[UNK]")


def llama():
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)])
    return tokenizer, trainers.BpeTrainer(vocab_size=26, special_tokens=SPECIAL)


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet)


KINDS = {
    "always": lambda: metaspace("always"),
    "first": lambda: metaspace("first"),
    "llama": llama,
    "bytes": byte_level,
}


@pytest.fixture(params=KINDS)
def made(request, tmp_path):
    tokenizer, trainer = KINDS[request.param]()
    trainer.show_progress = False
    # Words by themselves: no token of theirs goes across a space, which few do in earnest.
    tokenizer.train_from_iterator(TEXT.split() * 50 if request.param == "llama" else [TEXT] * 50, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return TokenizerFile(str(tmp_path / "tokenizer.json"))


@pytest.mark.parametrize("text", [TEXT, "on a cat. the", "the log, near a cat."])
def test_a_mask_stands_where_training_would_put_it(made, text):
    """For every word: the text's own tokens, those of the word and its space hidden."""
    (ids,) = made.encode_batch([text])
    offsets = made.offsets(text)
    tried = 0
    for word in ("cat", "sat", "log"):
        start = text.find(f" {word}")
        if start < 0:
            continue
        hidden = (offsets[:, 0] < start + 1 + len(word)) & (offsets[:, 1] > start)
        if (offsets[hidden, 0] < start).any() or (offsets[hidden, 1] > start + 1 + len(word)).any():
            continue  # a token goes across
        found = encode(f"{text[:start]} [MASK]{text[start + 1 + len(word) :]}", made)
        first, last = np.flatnonzero(hidden)[[0, -1]]
        assert found == [*ids[:first].tolist(), made.vocabulary.mask_id, *ids[last + 1 :].tolist()], word
        tried += 1
    assert tried or "log" in text


def test_masks_side_by_side_have_nothing_between(made):
    mask = made.vocabulary.mask_id
    assert encode("[MASK] [MASK]", made) == encode("[MASK][MASK]", made) == [mask, mask]


def test_words_are_encoded_as_in_the_text_and_labelled_at_their_letters(made):
    words = ["the", "cat", "sat", "on", "a", "mat"]
    example = TokenExamples(["O", "B"]).encode(
        {"text": words, "label": ["O", "B", "O", "O", "O", "B"]}, made, Frame(made), None, with_label=True
    )
    (ids,) = made.encode_batch([" ".join(words)])
    inside = example.arrays["input_ids"].tolist()
    assert inside == ids.tolist()
    at = np.flatnonzero(example.arrays["labels"] != -100)
    assert len(at) == len(words)
    for place, word in zip(at, words, strict=True):
        letters = made.decode([inside[place]]).strip()
        assert letters, "no bare mark of a space"
        assert word.startswith(letters)


class Letters:
    """One document of DNA without a space."""

    def __init__(self, count):
        self.text = "".join(np.random.default_rng(0).choice(list("ACGT"), count))

    def documents(self):
        yield self.text


def test_training_on_a_sequence_without_spaces_takes_no_square_time():
    """In one word it takes more than 20 s."""
    start = time.perf_counter()
    tokenizer = train_tokenizer(Letters(200_000), "bpe", 300)
    assert time.perf_counter() - start < 10
    assert len(tokenizer.encode(Letters(500).text).tokens) < 400


def test_long_words_are_cut_and_nothing_is_lost():
    for text in ("A" * 2_500, f"a b {'C' * 1_000} {'D' * 1_001} e ", "", "a b"):
        pieces = list(_pieces(text))
        assert "".join(pieces) == text
        assert max(len(word) for piece in pieces for word in piece.split() or [""]) <= 1_000
