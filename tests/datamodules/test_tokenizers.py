import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from datamodules import ByteTokenizer, TokenizerFile
from datamodules.tokenizers.library import LibraryTokenizer

KINDS = ["WordPiece", "BPE", "Unigram", "WordLevel"]


def test_bytes_round_trip():
    tokenizer = ByteTokenizer()
    texts = ["", "plain", "naïve Ελλάδα 🦊", "[MASK] [PAD]"]
    encoded = tokenizer.encode_batch(texts)
    assert [ids.tolist() for ids in encoded] == [list(text.encode()) for text in texts]
    assert all(ids.dtype == np.int32 for ids in encoded)
    assert [tokenizer.decode(ids) for ids in encoded] == texts


def test_byte_vocabulary():
    vocabulary = ByteTokenizer().vocabulary
    assert vocabulary.size == 258
    assert vocabulary.special_ids == (256, 257)
    assert ByteTokenizer().decode([65, vocabulary.mask_id, vocabulary.pad_id, 0xFF]) == "A[MASK][PAD]\ufffd"


@pytest.mark.parametrize("kind", KINDS)
def test_file_encodes_whole_documents_and_nothing_else(tokenizer_file, kind: str):
    path = tokenizer_file(kind)
    before = Path(path).read_bytes()
    plain = Tokenizer.from_file(path)
    plain.no_truncation()
    plain.no_padding()
    assert json.loads(before)["truncation"]["max_length"] == 8  # the settings that must not apply are there

    texts = ["the quick brown fox jumps over the lazy dog and over the lazy dog again", "fox", ""]
    encoded = TokenizerFile(path).encode_batch(texts)
    assert [ids.tolist() for ids in encoded] == [plain.encode(text, add_special_tokens=False).ids for text in texts]
    assert len(encoded[0]) > 8
    assert len(encoded[2]) == 0
    assert all(ids.dtype == np.int32 for ids in encoded)
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_special_names_in_the_text_are_ordinary_letters(tokenizer_file, kind: str):
    path = tokenizer_file(kind)
    tokenizer = TokenizerFile(path)
    text = "the [MASK] fox[PAD] [CLS] jumps [MASK]"
    # Left to itself the library does produce the special id, so the test can fail.
    assert tokenizer.vocabulary.mask_id in Tokenizer.from_file(path).encode(text).ids

    (ids,) = tokenizer.encode_batch([text])
    unknown = Tokenizer.from_file(path).token_to_id("[UNK]")
    assert not set(ids.tolist()) & (set(tokenizer.vocabulary.special_ids) - {unknown})
    plain = Tokenizer.from_file(path)
    plain.no_truncation()
    plain.no_padding()
    plain.encode_special_tokens = True
    letters = plain.encode(text, add_special_tokens=False).ids
    if kind in ("WordLevel", "Unigram"):  # these models know "[MASK]" as a word, which the library's switch can't stop
        assert tokenizer.vocabulary.mask_id in letters
        assert ids[0] == letters[0]
    else:
        assert ids.tolist() == letters


def test_ordinary_text_is_encoded_once(tokenizer_file, monkeypatch):
    tokenizer = TokenizerFile(tokenizer_file("WordPiece"))
    monkeypatch.delattr(LibraryTokenizer, "_encode_cut")
    tokenizer.encode_batch(["the quick brown fox [MASK]", "zebra \N{SNOWMAN} unknown"])


def test_special_id_from_a_merge_of_the_model_itself(tmp_path: Path):
    tokenizer = Tokenizer(
        models.BPE(vocab={"[": 0, "M": 1, "]": 2, "[M": 3, "[M]": 4, "P": 5}, merges=[("[", "M"), ("[M", "]")])
    )
    path = str(tmp_path / "merged.json")
    tokenizer.save(path)  # "[M]" is an entry of the model and no added token
    (ids,) = TokenizerFile(path, mask_token="[M]", pad_token="P").encode_batch(["M[M]M"])
    assert ids.tolist() == [1, 0, 1, 2, 1]


def test_a_text_that_can_only_be_special_is_an_error(tmp_path: Path):
    path = str(tmp_path / "letters.json")
    Tokenizer(models.BPE(vocab={"a": 0, "M": 1, "P": 2}, merges=[])).save(path)
    with pytest.raises(ValueError, match="encodes ordinary text as its special token 'M'"):
        TokenizerFile(path, mask_token="M", pad_token="P").encode_batch(["aMa"])


@pytest.mark.parametrize("kind", KINDS)
def test_file_vocabulary(tokenizer_file, kind: str):
    path = tokenizer_file(kind)
    plain = Tokenizer.from_file(path)
    plain.add_special_tokens(["[EXTRA]"])
    plain.add_tokens(["ordinary"])
    plain.save(path)
    vocabulary = TokenizerFile(path).vocabulary
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EXTRA]"]
    unused = set(range(vocabulary.size)) - set(plain.get_vocab(with_added_tokens=True).values())
    assert set(vocabulary.special_ids) == unused | {plain.token_to_id(name) for name in names}
    assert vocabulary.mask_id == plain.token_to_id("[MASK]")
    assert vocabulary.pad_id == plain.token_to_id("[PAD]")
    assert vocabulary.size == plain.token_to_id("ordinary") + 1


def test_size_covers_ids_with_gaps(tmp_path: Path):
    path = str(tmp_path / "gaps.json")
    Tokenizer(models.WordLevel(vocab={"a": 0, "[MASK]": 7, "[PAD]": 3}, unk_token="a")).save(path)
    vocabulary = TokenizerFile(path).vocabulary
    assert vocabulary.size == 8
    # ids without a token are never drawn at random
    assert vocabulary.special_ids == (1, 2, 3, 4, 5, 6, 7)


def test_decode(tokenizer_file):
    tokenizer = TokenizerFile(tokenizer_file("WordLevel"))
    (ids,) = tokenizer.encode_batch(["the quick brown fox"])
    ids[1] = tokenizer.vocabulary.mask_id
    assert tokenizer.decode(ids) == "the [MASK] brown fox"


def test_fingerprints(tokenizer_file):
    path = tokenizer_file("WordLevel")
    fingerprint = TokenizerFile(path).fingerprint()
    assert TokenizerFile(path).fingerprint() == fingerprint
    assert TokenizerFile(path, mask_token="[SEP]").fingerprint() != fingerprint
    assert ByteTokenizer().fingerprint() == ByteTokenizer().fingerprint() != fingerprint
    changed = Tokenizer.from_file(path)
    changed.add_tokens(["new"])
    changed.save(path)
    assert TokenizerFile(path).fingerprint() != fingerprint


def test_bad_arguments(tmp_path: Path, tokenizer_file):
    path = tokenizer_file("WordPiece")
    with pytest.raises(ValueError, match=r"mask_token='<mask>' is not in the vocabulary .* '\[MASK\]'"):
        TokenizerFile(path, mask_token="<mask>")
    with pytest.raises(ValueError, match="pad_token='<pad>' is not in the vocabulary"):
        TokenizerFile(path, pad_token="<pad>")
    with pytest.raises(ValueError, match="is no file"):
        TokenizerFile(str(tmp_path / "missing.json"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="is no tokenizer"):
        TokenizerFile(str(tmp_path / "broken.json"))
