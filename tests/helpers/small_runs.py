"""Small runs through the command line that differ in a setting, and their evaluation."""

import json
from pathlib import Path

import yaml

from gau_alpha.cli import main

EVALUATION = ["--methods", "trained", "--length_ratios", "1", "2", "--max_documents", "2", "--output_dir", "out"]


def train(run, tmp_path, name, **changes):
    """Train as the shared run was, with other settings by dotted name; return the checkpoint."""
    config = yaml.safe_load(run.config.read_text())
    config["trainer"]["logger"]["init_args"] |= {"save_dir": str(tmp_path), "version": name}
    config["trainer"]["default_root_dir"] = str(tmp_path)
    for place, value in changes.items():
        *outer, last = place.split(".")
        section = config
        for key in outer:
            section = section[key]
        section[last] = value
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(path)]) == 0
    return tmp_path / "run" / name / "checkpoints" / "last.ckpt"


def make_tokenizer(path: Path, corpus: Path, kind: str) -> dict:
    args = ["--source", str(corpus), "--kind", kind, "--vocab_size", "300", "--output", str(path)]
    assert main(["tokenizer", "train", *args]) == 0
    return {"class_path": "datamodules.TokenizerFile", "init_args": {"path": str(path)}}


def extrapolate(*checkpoints, more=()):
    return main(["extrapolate", "--ckpt_path", *map(str, checkpoints), *EVALUATION, *more])


def results():
    return json.loads(Path("out/extrapolation.json").read_text())["rows"]


def swap_two(path: Path) -> None:
    """Exchange two letters of a tokenizer file: as large as before, and every text reads otherwise."""
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    a, b = ("a", "b") if isinstance(vocab, dict) else (vocab.index(next(x for x in vocab if x[0] == y)) for y in "ab")
    vocab[a], vocab[b] = vocab[b], vocab[a]
    path.write_text(json.dumps(content))
