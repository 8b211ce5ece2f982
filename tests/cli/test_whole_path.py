"""From text to table: what holds only if all parts do their share."""

import json

import pytest
import torch
import yaml
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from gau_alpha import GAUAlphaForMaskedLM
from gau_alpha.cli import main

CALLBACK = {
    "class_path": "callbacks.extrapolation.ExtrapolationEvaluation",
    "init_args": {"every_n_train_steps": 1, "length_ratios": [1, 4], "methods": ["trained", "infoscale", "cosscale"]},
}


def trained(run, tmp_path, name, *args, callbacks=()):
    """Weights and optimizer state after six steps with dropout."""
    config = yaml.safe_load(run.config.read_text())
    config["trainer"] |= {"max_steps": 6, "default_root_dir": str(tmp_path)}
    config["trainer"]["logger"]["init_args"] |= {"save_dir": str(tmp_path), "version": name}
    config["trainer"]["callbacks"] += callbacks
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(path), *args]) == 0
    return torch.load(tmp_path / "run" / name / "checkpoints" / "last.ckpt", weights_only=True)


def assert_equal(left, right):
    assert left["state_dict"].keys() == right["state_dict"].keys()
    assert all(torch.equal(left["state_dict"][name], right["state_dict"][name]) for name in left["state_dict"])
    moments = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (left, right)]
    for ours, theirs in zip(moments[0].values(), moments[1].values(), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ("exp_avg", "exp_avg_sq"))


def test_training_is_the_same_with_evaluation_and_with_workers(run, tmp_path):
    plain = trained(run, tmp_path, "plain")
    assert_equal(plain, trained(run, tmp_path, "evaluated", callbacks=[CALLBACK]))
    assert_equal(plain, trained(run, tmp_path, "workers", "--data.num_workers", "2"))
    other = trained(run, tmp_path, "other", "--data.seed", "1")
    assert not torch.equal(
        plain["state_dict"]["model.gau_alpha.embeddings.word_embeddings.weight"],
        other["state_dict"]["model.gau_alpha.embeddings.word_embeddings.weight"],
    )
    assert (tmp_path / "run/evaluated/extrapolation/step_6/extrapolation.json").is_file()


@pytest.fixture
def seen(monkeypatch):
    """Real tokens in each row that a model reads."""
    lengths = []
    original = GAUAlphaForMaskedLM.forward

    def forward(self, input_ids, attention_mask=None, **others):
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        lengths.extend(mask.sum(1).tolist())
        return original(self, input_ids, attention_mask, **others)

    monkeypatch.setattr(GAUAlphaForMaskedLM, "forward", forward)
    return lengths


def test_64_times_the_length_is_64_times_the_tokens(run, tmp_path, seen):
    """Also when the tokenizer file was saved with truncation and padding switched on."""
    words = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, **{letter: 3 + i for i, letter in enumerate("abcdefgh ")}}
    tokenizer = Tokenizer(WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    tokenizer.enable_truncation(max_length=20)
    tokenizer.enable_padding(length=20, pad_token="[PAD]")
    file = tmp_path / "tokenizer.json"
    tokenizer.save(str(file))
    before = file.read_bytes()
    config = yaml.safe_load(run.config.read_text())
    config["data"]["init_args"] |= {
        "tokenizer": {"class_path": "datamodules.TokenizerFile", "init_args": {"path": str(file)}},
        "train_length": 8,
    }
    config["trainer"]["logger"]["init_args"]["save_dir"] = str(tmp_path)
    (tmp_path / "letters.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "letters.yaml")]) == 0
    seen.clear()
    checkpoint = tmp_path / "run/first/checkpoints/last.ckpt"
    args = ["extrapolate", "--ckpt_path", str(checkpoint), "--output_dir", str(tmp_path), "--methods", "trained"]
    assert main([*args, "--length_ratios", "1", "64"]) == 0
    rows = json.loads((tmp_path / "extrapolation.json").read_text())["rows"]
    assert [row["length"] for row in rows] == [8, 512]
    assert set(seen) == {8, 512}
    assert seen.count(512) == rows[1]["num_documents"] > 0
    assert rows[1]["num_targets"] == rows[1]["num_documents"] * round(0.15 * 512)
    assert file.read_bytes() == before
