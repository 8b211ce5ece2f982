"""``gau-alpha tokenizer``: what it learns is what a run reads."""

import re
from pathlib import Path

import pytest
import yaml

from datamodules import TokenizerFile
from gau_alpha.cli import main


def tokenizer(*args) -> int:
    try:
        return main(["tokenizer", *map(str, args)])
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_train_then_inspect(corpus: Path, tmp_path: Path, capsys, kind: str):
    output = tmp_path / "new" / "tokenizer.json"
    size = 300 if kind == "bpe" else 50
    assert tokenizer("train", "--source", corpus, "--kind", kind, "--vocab_size", size, "--output", output) == 0
    assert TokenizerFile(str(output)).vocabulary.size == size
    told = capsys.readouterr().out
    assert f"{kind}, {size} tokens" in told
    assert re.search(
        r"on the first [\d,]+ characters: \d\.\d{3} tokens per character, \d+\.\d\d% unknown, \d+% of", told
    )
    assert [path.name for path in output.parent.iterdir()] == ["tokenizer.json"]

    assert tokenizer("inspect", output, "--text", "abc [MASK]") == 0
    shown = capsys.readouterr().out
    vocabulary = TokenizerFile(str(output)).vocabulary
    assert f"[MASK] = {vocabulary.mask_id}" in shown
    assert f"{size} ids" in shown
    (ids,) = TokenizerFile(str(output)).encode_batch(["abc [MASK]"])
    assert " ".join(map(str, ids.tolist())) in shown


def test_a_source_by_class_path_and_by_file(corpus: Path, tmp_path: Path):
    options = ["--vocab_size", 300, "--output"]
    (tmp_path / "corpus.yaml").write_text(
        yaml.safe_dump({"source": {"class_path": "datamodules.TextFiles", "init_args": {"paths": str(corpus)}}})
    )
    for name, source in {
        "path": [f"--source={corpus}"],
        "glob": ["--source", f"{corpus}/*.txt"],
        "class": ["--source", "datamodules.TextFiles", "--source.paths", corpus],
        "config": ["--config", tmp_path / "corpus.yaml"],
    }.items():
        assert tokenizer("train", *source, *options, tmp_path / name) == 0
    assert len({(tmp_path / name).read_bytes() for name in ("path", "glob", "class", "config")}) == 1


def test_inspect_reads_a_bert_vocabulary(tmp_path: Path, capsys):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[MASK]\nfox\n##es\n")
    assert tokenizer("inspect", tmp_path / "vocab.txt", "--text", "foxes") == 0
    shown = capsys.readouterr().out
    assert "WordPieceVocab" in shown
    assert "'fox' '##es'" in shown


def test_a_run_with_a_trained_tokenizer(run, corpus: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without a logger, a run is recorded where it is started
    output = tmp_path / "tokenizer.json"
    assert tokenizer("train", "--source", corpus, "--kind", "bpe", "--vocab_size", 300, "--output", output) == 0
    config = yaml.safe_load(run.config.read_text())
    init_args = {"path": str(output)}
    config["data"]["init_args"]["tokenizer"] = {"class_path": "datamodules.TokenizerFile", "init_args": init_args}
    config["trainer"] |= {"logger": False, "callbacks": [], "enable_checkpointing": False, "max_steps": 1}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "run.yaml")]) == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], ["train", "inspect"]),
        (["train", "--vocab_size", "300", "--output", "t.json"], ["source"]),
        (
            ["train", "--source", "missing/", "--vocab_size", "300", "--output", "t.json"],
            ["'missing/'", "names no file"],
        ),
        (["train", "--source", "datamodules.Nope", "--vocab_size", "300", "--output", "t.json"], ["datamodules.Nope"]),
        (["train", "--source", "CORPUS", "--vocab_size", "30", "--output", "t.json"], ["vocab_size=30", "258"]),
        (["train", "--source", "CORPUS", "--vocab_size", "300", "--output", "CORPUS"], ["output=", "is a folder"]),
        (["train", "--source", "CORPUS", "--kind", "bp", "--vocab_size", "9", "--output", "t"], ["bp", "wordpiece"]),
        (["inspect", "missing.json"], ["'missing.json' is no file"]),
        (["inspect", "missing.txt"], ["'missing.txt' is no file"]),
    ],
)
def test_mistakes(corpus: Path, tmp_path: Path, monkeypatch, capsys, args, words):
    monkeypatch.chdir(tmp_path)
    assert tokenizer(*[corpus if arg == "CORPUS" else arg for arg in args]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert all(word in error for word in words), error
    assert not list(tmp_path.iterdir())
