"""What a model puts in the place of [MASK]; and what happens without one, with several, and with very many tokens."""

import io
import json

import pytest
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from datamodules import ByteTokenizer, CharacterTokenizer, TokenizerFile
from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM, GAUAlphaModule
from gau_alpha.checkpoints import TOKENIZER, tokenizer_files
from gau_alpha.cli import main

MASK = 257


@pytest.fixture
def filled(capsys):
    """Run the command and parse what it prints."""

    def fill(model, *args):
        capsys.readouterr()
        assert main(["fill-mask", "--model", str(model), "--json", *args]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return fill


def test_predictions_are_the_models(run, filled):
    (result,) = filled(run.checkpoint, "--top_k", "3", "ab [MASK]cd")
    assert result["text"] == "ab [MASK]cd"
    assert result["num_tokens"] == 6
    (mask,) = result["masks"]
    assert mask["position"] == 3
    model = GAUAlphaModule.load_from_checkpoint(run.checkpoint).model.eval()
    with torch.no_grad():
        expected = model(torch.tensor([[*b"ab ", MASK, *b"cd"]]))[0, 3].softmax(-1)
    assert [one["id"] for one in mask["predictions"]] == expected.topk(3).indices.tolist()
    for one in mask["predictions"]:
        assert one["probability"] == pytest.approx(expected[one["id"]].item(), rel=1e-5)
        assert one["token"] == ByteTokenizer().decode([one["id"]])


def test_probabilities_are_shares_of_the_whole_vocabulary(run, filled):
    (result,) = filled(run.checkpoint, "--top_k", "258", "[MASK]")
    values = [one["probability"] for one in result["masks"][0]["predictions"]]
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert values == sorted(values, reverse=True)


def test_several_masks_and_several_texts(run, filled):
    first, second = filled(run.checkpoint, "[MASK]b[MASK][MASK]", "c[MASK]")
    assert [mask["position"] for mask in first["masks"]] == [0, 2, 3]
    assert [mask["position"] for mask in second["masks"]] == [1]


def test_from_a_folder_it_is_the_same(run, filled, tmp_path):
    assert main(["convert", str(run.checkpoint), str(tmp_path / "folder")]) == 0
    (folder,), (checkpoint,) = (filled(path, "ä [MASK]\tb") for path in (tmp_path / "folder", run.checkpoint))
    assert (folder["text"], folder["num_tokens"]) == (checkpoint["text"], checkpoint["num_tokens"])
    one, other = ([mask["predictions"] for mask in result["masks"]] for result in (folder, checkpoint))
    flat = [[prediction for mask in masks for prediction in mask] for masks in (one, other)]
    assert [x["id"] for x in flat[0]] == [x["id"] for x in flat[1]]
    # Weights equal bit for bit lie elsewhere in memory, and where they lie decides how products are summed.
    for x, y in zip(*flat, strict=True):
        assert x["probability"] == pytest.approx(y["probability"], rel=1e-5)


def test_standard_input_is_read_by_line(run, filled, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a [MASK]\n\nb [MASK]\n"))
    assert [result["text"] for result in filled(run.checkpoint)] == ["a [MASK]", "b [MASK]"]


def test_text_for_people(run, capsys):
    assert main(["fill-mask", "--model", str(run.checkpoint), "--top_k", "2", "a[MASK]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["a[MASK]", "  token 1"]
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([""], ["text is empty", "[MASK]"]),
        (["  "], ["text is empty"]),
        ([], ["no text", "standard input"]),
        (["hello"], ["no [MASK]", "'hello'"]),
        (["a [MASK]", "b"], ["no [MASK]", "'b'"]),
        (["--top_k", "0", "[MASK]"], ["--top_k is 0", "258"]),
        (["--top_k", "259", "[MASK]"], ["--top_k is 259", "258"]),
        (["--tokenizer", "nowhere.json", "[MASK]"], ["nowhere.json"]),
        (["--model", "nowhere.ckpt", "[MASK]"], ["nowhere.ckpt"]),
    ],
)
def test_mistakes(run, capsys, monkeypatch, args, words):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["fill-mask", "--model", str(run.checkpoint), *args]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert not [word for word in words if word not in shown.err], shown.err


def test_a_long_text_is_read_whole(run, filled, capsys):
    text = "abc " * 5000
    (result,) = filled(run.checkpoint, f"{text}[MASK]{text[:40]}")
    assert result["num_tokens"] == 20_041
    assert result["masks"][0]["position"] == 20_000


@pytest.mark.slow
def test_a_hundred_thousand_tokens(tmp_path, capsys):
    """One narrow layer: what is tested is that nothing is cut and nothing of L × L is kept."""
    GAUAlphaForMaskedLM(GAUAlphaConfig(258, 8, 4, 2, 1)).save_pretrained(tmp_path)
    (tmp_path / TOKENIZER).write_text(tokenizer_files(ByteTokenizer())[TOKENIZER], encoding="utf-8")
    text = "abcdefg " * 12_500
    assert main(["fill-mask", "--model", str(tmp_path), f"{text}[MASK]", "--json"]) == 0
    shown = capsys.readouterr()
    assert "100001 tokens" in shown.err
    assert json.loads(shown.out)["masks"][0]["position"] == 100_000


def letters(folder):
    words = {"[PAD]": 0, "[HIDE]": 1, "[UNK]": 2, **{letter: 3 + i for i, letter in enumerate("abcdefgh")}}
    tokenizer = Tokenizer(WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))


def test_a_tokenizer_of_another_size_is_named(run, tmp_path, capsys):
    GAUAlphaForMaskedLM(GAUAlphaConfig(8, 16, 24, 8, 1)).save_pretrained(tmp_path)
    letters(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": {"content": "[HIDE]"}}))
    assert main(["fill-mask", "--model", str(tmp_path), "a[HIDE]"]) == 2
    assert "11 ids" in capsys.readouterr().err


def test_a_folders_own_name_of_the_mask(tmp_path, filled):
    GAUAlphaForMaskedLM(GAUAlphaConfig(11, 16, 24, 8, 1)).save_pretrained(tmp_path)
    letters(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": {"content": "[HIDE]"}}))
    (result,) = filled(tmp_path, "--top_k", "11", "ab[HIDE]")
    assert (result["num_tokens"], result["masks"][0]["position"]) == (3, 2)


def test_a_folder_without_a_tokenizer(tmp_path, capsys):
    GAUAlphaForMaskedLM(GAUAlphaConfig(11, 16, 24, 8, 1)).save_pretrained(tmp_path)
    assert main(["fill-mask", "--model", str(tmp_path), "a[MASK]"]) == 2
    assert "--tokenizer" in capsys.readouterr().err


def test_a_published_vocabulary_frames_the_text(tmp_path, filled):
    """The published models were trained on [CLS] text [SEP], in lower case."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "中", "国", "ab", "##c"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(9, 16, 24, 8, 1, initializer_range=0.3)).eval()
    model.save_pretrained(tmp_path)
    (result,) = filled(tmp_path, "--top_k", "1", "中[MASK]国 ABC")
    assert result["num_tokens"] == 7
    with torch.no_grad():
        expected = model(torch.tensor([[2, 5, 4, 6, 7, 8, 3]]))[0, 2].softmax(-1)
    (mask,) = result["masks"]
    assert mask["position"] == 2
    assert mask["predictions"][0]["id"] == expected.argmax()


def test_the_byte_tokenizers_file_agrees_with_it(tmp_path):
    own = ByteTokenizer()
    (tmp_path / TOKENIZER).write_text(tokenizer_files(own)[TOKENIZER], encoding="utf-8")
    file = TokenizerFile(str(tmp_path / TOKENIZER))
    assert file.vocabulary == own.vocabulary
    texts = ["", " a  b\n\t\x00", "[MASK] 中国 é", "".join(map(chr, range(0x300)))]
    for ours, theirs in zip(own.encode_batch(texts), file.encode_batch(texts), strict=True):
        assert ours.tolist() == theirs.tolist()
    for token in (65, 32, 255, 256, 257):
        assert file.decode([token]) == own.decode([token])


@pytest.mark.parametrize("own", [CharacterTokenizer(), CharacterTokenizer("ACGTN")], ids=["printable", "DNA"])
def test_the_character_tokenizers_file_agrees_with_it(tmp_path, own):
    (tmp_path / TOKENIZER).write_text(tokenizer_files(own)[TOKENIZER], encoding="utf-8")
    file = TokenizerFile(str(tmp_path / TOKENIZER))
    assert file.vocabulary == own.vocabulary
    assert file.unknown_id == own.unknown_id
    texts = ["", " a  b\n\t\x00\r\n", "[MASK] 中国 é", "GATTACA NN", "".join(map(chr, range(0x300)))]
    for text, ours, theirs in zip(texts, own.encode_batch(texts), file.encode_batch(texts), strict=True):
        assert ours.tolist() == theirs.tolist()
        assert file.offsets(text).tolist() == own.offsets(text).tolist()
    for token in range(own.vocabulary.size):
        assert file.decode([token]) == own.decode([token])
