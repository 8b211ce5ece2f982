"""Characters, BERT-style vocabularies, trained tokenizers."""

from pathlib import Path

import numpy as np
import pytest

from datamodules import ByteTokenizer, CharacterTokenizer, Synthetic, TextFiles, TokenizerFile, WordPieceVocab
from datamodules.masking import TokenMasking
from datamodules.tokenizers.training import train_tokenizer

VOCAB = [
    "[PAD]",
    "[unused1]",
    "[UNK]",
    "[CLS]",
    "<S>",
    "[SEP]",
    "the",
    "fox",
    "##es",
    "天",
    "气",
    "[",
    "]",
    "mask",
    "sep",
]


@pytest.fixture
def vocab(tmp_path: Path) -> str:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*VOCAB, "[MASK]"]) + "\n")
    return str(path)


def test_characters():
    tokenizer = CharacterTokenizer("ACGTN")
    (ids, empty) = tokenizer.encode_batch(["NGATTAC", ""])
    assert ids.tolist() == [4, 2, 0, 3, 3, 0, 1]
    assert ids.dtype == empty.dtype == np.int32
    assert tokenizer.decode(ids) == "NGATTAC"
    (ids,) = tokenizer.encode_batch(["A🦊g"])
    assert tokenizer.decode(ids) == "A[UNK][UNK]"
    vocabulary = tokenizer.vocabulary
    assert (vocabulary.size, vocabulary.special_ids) == (8, (5, 6, 7))
    assert tokenizer.unknown_id in vocabulary.special_ids
    assert tokenizer.fingerprint() != CharacterTokenizer("ACGNT").fingerprint()
    assert CharacterTokenizer().decode(CharacterTokenizer().encode_batch(["Plain text.\n"])[0]) == "Plain text.\n"


@pytest.mark.parametrize("characters", ["", "ACGTA"])
def test_bad_alphabets(characters: str):
    with pytest.raises(ValueError, match=f"characters='{characters}' must hold at least one .* and none twice"):
        CharacterTokenizer(characters)


def test_word_piece_vocabulary_by_names(vocab: str):
    tokenizer = WordPieceVocab(vocab)
    vocabulary = tokenizer.vocabulary
    assert (vocabulary.size, vocabulary.pad_id, vocabulary.mask_id) == (16, 0, 15)
    assert vocabulary.special_ids == (0, 1, 2, 3, 4, 5, 15)
    assert tokenizer.unknown_id == 2
    (ids,) = tokenizer.encode_batch(["The foxes 天气 zebra"])
    assert ids.tolist() == [6, 7, 8, 9, 10, 2]


def test_special_names_in_the_text_are_letters(vocab: str):
    (ids,) = WordPieceVocab(vocab).encode_batch(["[MASK] [SEP][PAD] <S> [unused1]"])
    assert ids.tolist() == [11, 13, 12, 11, 14, 12, 11, 2, 12, 2, 2, 2, 11, 2, 12]


def test_lower_casing_is_a_choice(vocab: str):
    assert WordPieceVocab(vocab, lowercase=False).encode_batch(["The fox"])[0].tolist() == [2, 7]
    assert WordPieceVocab(vocab, lowercase=False).fingerprint() != WordPieceVocab(vocab).fingerprint()


def test_the_content_of_the_vocabulary_is_its_fingerprint(vocab: str):
    before = WordPieceVocab(vocab).fingerprint()
    content = Path(vocab).read_text()
    Path(vocab).write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    assert WordPieceVocab(vocab).fingerprint() == before  # the same tokens, saved by another editor
    Path(vocab).write_text(content.replace("fox", "cat"))
    assert WordPieceVocab(vocab).fingerprint() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[PAD]\n[UNK]\na\n\n[MASK]\n", "line 4: is blank"),
        ("[PAD]\n[UNK]\na\na\n[MASK]\n", "line 4: 'a' is already on line 3"),
        ("[PAD]\na\n[MASK]\n", r"unknown_token='\[UNK\]' is not in the vocabulary .* \['\[PAD\]', '\[MASK\]'\]"),
        ("[PAD]\n[UNK]\na\n", r"mask_token='\[MASK\]' is not in the vocabulary"),
        ("[MASK]\n[UNK]\na\n", r"pad_token='\[PAD\]' is not in the vocabulary"),
    ],
)
def test_bad_vocabularies(tmp_path: Path, content: str, message: str):
    path = tmp_path / "vocab.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        WordPieceVocab(str(path))


def test_special_and_unused_ids_are_never_drawn_nor_predicted(vocab: str):
    vocabulary = WordPieceVocab(vocab).vocabulary
    rows = np.tile(np.arange(16), (400, 1))
    masked, labels = TokenMasking(1.0, 0.0, 1.0).apply(rows, np.ones_like(rows), np.arange(400), 0, 0, vocabulary)
    drawn = masked[labels != -100]
    assert set(drawn.tolist()) == set(labels[labels != -100].tolist()) == set(range(16)) - set(vocabulary.special_ids)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_a_trained_tokenizer_is_one_of_ours(tmp_path: Path, kind: str):
    text = "the quick brown fox jumps over the lazy dog, the [MASK] fox and the [PAD] dog are quicker. " * 20
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_text("")
    source = TextFiles([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    size = {"bpe": 300, "wordpiece": 80, "unigram": 60}[kind]
    path = str(tmp_path / "tokenizer.json")
    with pytest.warns(UserWarning, match="fewer than") if kind == "unigram" else _nothing():
        train_tokenizer(source, kind, size).save(path)
    tokenizer = TokenizerFile(path)
    assert tokenizer.vocabulary.size <= size
    (ids,) = tokenizer.encode_batch([text])
    assert len(ids) < len(text) * 0.8
    assert not {tokenizer.vocabulary.mask_id, tokenizer.vocabulary.pad_id} & set(ids.tolist())
    assert tokenizer.unknown_id not in ids.tolist()
    if kind != "wordpiece":  # which does not keep spaces
        # unigram reads "[" and "MASK]" as two words where together they would be the mask
        assert tokenizer.decode(ids).replace("[ ", "[").strip() == text.strip()
    if kind == "bpe":  # the library's other trainers number letters as a hash table happens to hold them
        again = str(tmp_path / "again.json")
        train_tokenizer(source, kind, size).save(again)
        assert Path(again).read_bytes() == Path(path).read_bytes()


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_text_without_spaces_is_slow_for_unigram_and_that_is_said(tmp_path: Path, recwarn):
    dice = np.random.default_rng(0)
    (tmp_path / "dna.txt").write_text("".join(dice.choice(list("ACGT"), 4_000)))
    source = TextFiles([str(tmp_path / "dna.txt")])
    for kind, size in (("bpe", 300), ("unigram", 60)):
        train_tokenizer(source, kind, size)
        told = [str(one.message) for one in recwarn if "minutes per million letters" in str(one.message)]
        assert len(told) == (kind == "unigram")


def test_a_long_document_is_learned_in_pieces(monkeypatch):
    monkeypatch.setattr("datamodules.tokenizers.training._PIECE_CHARACTERS", 10)
    from datamodules.tokenizers.training import _pieces

    assert list(_pieces("one two three fourandmore five")) == ["one two", " three", " fourandmo", "re five"]
    assert "".join(_pieces("x" * 35)) == "x" * 35


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("word", 100), r"kind='word' must be one of \['bpe', 'wordpiece', 'unigram'\]"),
        (("bpe", 200), "vocab_size=200 must be at least 258 for bpe"),
        (("wordpiece", 20), r"vocab_size=20 is below \d+, the number of different letters"),
        (("unigram", 3), "vocab_size=3 must be at least 4 for unigram"),
    ],
)
def test_bad_training_arguments(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(Synthetic(), *arguments)


def test_nothing_is_learned_from_blank_text(tmp_path: Path):
    (tmp_path / "a.txt").write_text("  \n")
    with pytest.raises(ValueError, match="TextFiles yields no text to learn from"):
        train_tokenizer(TextFiles(str(tmp_path)), "bpe", 300)


def words(tokenizer, text: str) -> list[str]:
    """Put tokens together to words as the table says."""
    table = tokenizer.word_table()
    (ids,) = tokenizer.encode_batch([text])
    groups: list[list[int]] = []
    for i, token in enumerate(ids.tolist()):
        if i and table.goes_on[token] and table.is_open[ids[i - 1]]:
            groups[-1].append(token)
        else:
            groups.append([token])
    return [tokenizer.decode(group).strip().removeprefix("##") for group in groups]


def test_words_of_every_kind_of_tokenizer(tmp_path: Path, vocab: str):
    text = "the naïve fox-trot (x_1) jumps"
    expected = ["the", "naïve", "fox", "-", "trot", "(", "x_1", ")", "jumps"]
    (tmp_path / "a.txt").write_text(f"{text} jumping the fox 天气 " * 9)
    for kind, size in (("bpe", 280), ("unigram", 40), ("wordpiece", 60)):
        path = str(tmp_path / f"{kind}.json")
        train_tokenizer(TextFiles(str(tmp_path / "a.txt")), kind, size).save(path)
        # BERT splits at the underscore
        expected_here = [*expected[:6], "x", "_", "1", *expected[7:]] if kind == "wordpiece" else expected
        assert [word for word in words(TokenizerFile(path), text) if word] == expected_here, kind
    assert [word for word in words(ByteTokenizer(), text) if word] == expected
    assert [word for word in words(CharacterTokenizer("thenaïvfoxrju_1mps-() "), text) if word] == expected
    assert words(WordPieceVocab(vocab), "the foxes 天气") == ["the", "foxes", "天", "气"]


def test_ideographs_are_known(vocab: str):
    (ids,) = WordPieceVocab(vocab).encode_batch(["the 天气 fox"])
    assert WordPieceVocab(vocab).word_table().ideographic[ids].tolist() == [False, True, True, False]
    (ids,) = ByteTokenizer().encode_batch(["é天"])
    assert ByteTokenizer().word_table().ideographic[ids].tolist() == [False, False, True, False, False]
