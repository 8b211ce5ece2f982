"""Every YAML in ``configs/data`` trains 50 steps through the command line, as a user would call it."""

import csv
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import configs
from gau_alpha.cli import main

SHIPPED = sorted(path.stem for path in (Path(configs.__path__[0]) / "data").glob("*.yaml"))
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "[MASK]", "naïve"]


def texts(count: int = 40, words: int = 30) -> list[str]:
    chance = random.Random(0)
    return [" ".join(chance.choices(WORDS, k=words + number)) for number in range(count)]


def text_files(folder: Path) -> list[str]:
    for number, text in enumerate(texts()):
        (folder / f"{number}.txt").write_text(text)
    return ["--data.source.paths", str(folder / "*.txt")]


def text_lines(folder: Path) -> list[str]:
    (folder / "corpus.txt").write_text("\n\n".join(texts(120, 3)))
    return ["--data.source.paths", str(folder / "corpus.txt")]


def json_lines(folder: Path) -> list[str]:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text, "n": number}) + "\n" for number, text in enumerate(texts())))
    tokenizer = folder / "tokenizer.json"
    source = ["--source", "datamodules.JsonLines", "--source.paths", str(path)]
    assert main(["tokenizer", "train", *source, "--vocab_size", "300", "--output", str(tokenizer)]) == 0
    return ["--data.source.paths", str(path), "--data.tokenizer.path", str(tokenizer)]


def streaming(folder: Path) -> list[str]:
    path = folder / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in texts(200)).encode()))
    return ["--data.source.paths", str(path)]


def parquet(folder: Path) -> list[str]:
    pq.write_table(pa.table({"text": texts(), "n": range(40)}), folder / "train.parquet")
    return ["--data.source.paths", str(folder / "*.parquet")]


def hugging_face(folder: Path) -> list[str]:
    parquet(folder)
    return ["--data.source.path", str(folder), "--data.source.name", "default"]


def dna(folder: Path) -> list[str]:
    chance = random.Random(0)
    records = [f">{number}\n" + "".join(chance.choices("ACGTacgtN", k=200)) + "\n" for number in range(20)]
    (folder / "a.fa").write_text("".join(records))
    return ["--data.source.paths", str(folder / "a.fa")]


def chinese(folder: Path) -> list[str]:
    chance = random.Random(0)
    words = ["机器", "学习", "很好", "今天", "天气"]
    lines = ({"text": "".join(chance.choices(words, k=40))} for _ in range(30))
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "words.txt").write_text("\n".join(words))
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[MASK]", *sorted(set("".join(words)))]))
    return [
        *("--data.source.paths", str(folder / "corpus.jsonl")),
        *("--data.tokenizer.path", str(folder / "vocab.txt")),
        *("--data.masking.segmenter.path", str(folder / "words.txt")),
    ]


def nothing(folder: Path) -> list[str]:
    return []


CORPORA: dict[str, Callable[[Path], list[str]]] = {
    "chinese": chinese,
    "dna": dna,
    "hugging_face": hugging_face,
    "json_lines": json_lines,
    "mixture": nothing,
    "packed": text_lines,
    "parquet": parquet,
    "python_standard_library": nothing,
    "streaming": streaming,
    "synthetic": nothing,
    "text_files": text_files,
    "variable_length": nothing,
}


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def config_without_data(folder: Path) -> Path:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "attention_key_size": 8, "num_hidden_layers": 1}
    path = folder / "run.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "seed_everything": 1,
                "trainer": {
                    "accelerator": "cpu",
                    "max_steps": 50,
                    "log_every_n_steps": 10,
                    "limit_val_batches": 2,
                    "enable_progress_bar": False,
                    "enable_model_summary": False,
                    "enable_checkpointing": False,
                    "logger": {
                        "class_path": "lightning.pytorch.loggers.CSVLogger",
                        "init_args": {"save_dir": str(folder), "name": "run", "version": "first"},
                    },
                },
                "model": {
                    "config": {**sizes, "initializer_range": 0.3},
                    "optimizer": {"class_path": "AdamW", "init_args": {"learning_rate": 0.01}},
                },
            }
        )
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_fifty_steps(name: str, tmp_path: Path, cache_dir: Path, monkeypatch):
    assert name in CORPORA, "say in this test what corpus the new file is tried on"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    arguments = CORPORA[name](corpus)
    cache = [] if name == "streaming" else ["--data.cache_dir", str(cache_dir)]
    config = config_without_data(tmp_path)
    small = ["--data.batch_size", "4"]
    assert main(["fit", "--config", str(config), "--data", f"{name}.yaml", *small, *cache, *arguments]) == 0
    with (tmp_path / "run" / "first" / "metrics.csv").open() as file:
        losses = [(int(row["step"]), float(row["train/loss"])) for row in csv.DictReader(file) if row["train/loss"]]
    assert losses[-1][0] == 50
    assert losses[-1][1] < losses[0][1]


def test_every_corpus_has_its_file():
    assert sorted(CORPORA) == SHIPPED
