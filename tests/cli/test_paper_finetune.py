"""The paper's fine-tuning as it is shipped, on a small model and a small corpus; and the folder that it leaves."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.cli import main
from gau_alpha.similarity import CosScale

pytestmark = pytest.mark.slow

SIZES = {"hidden_size": 16, "intermediate_size": 24, "attention_key_size": 8}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A deeper model with a published config, a corpus and a tokenizer, where the command is typed."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    (tmp_path / "wanjuan").mkdir()
    for part in range(2):
        lines = [json.dumps({"text": "甲乙丙丁戊己庚辛。" * (90 + number)}) for number in range(9)]
        (tmp_path / f"wanjuan/{part}.jsonl").write_text("\n".join(lines) + "\n")
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(12, **SIZES, num_hidden_layers=8, initializer_range=0.3))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (tmp_path / "base").mkdir()
    vocabulary = ["[PAD]", "[MASK]", "[UNK]", *"甲乙丙丁戊己庚辛", "。"]
    (tmp_path / "base/vocab.txt").write_text("\n".join(vocabulary) + "\n")
    torch.save(weights, tmp_path / "base/pytorch_model.bin")
    fields = {**SIZES, "vocab_size": 12, "num_hidden_layers": 8, "normalization": "softmax_plus"}
    (tmp_path / "base/config.json").write_text(json.dumps(fields))
    return weights


def fit(*more):
    sizes = [word for name, value in SIZES.items() for word in (f"--model.config.{name}", str(value))]
    quiet = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.cache_dir", "cache"]
    quiet += ["--data.source.path", "wanjuan", "--data.tokenizer.path", "base/vocab.txt"]
    quiet += ["--trainer.max_epochs", "20", "--trainer.logger.version", "v"]
    args = ["fit", "--config", "paper_finetune.yaml", "--model.init_from", "base", *sizes, *quiet, *more]
    assert main(args) == 0


def test_the_papers_settings(published, tmp_path):
    fit()
    folder = tmp_path / "runs/paper_finetune/v"
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    arguments = last["hyper_parameters"]
    rates = {"learning_rate": 1e-5, "weight_decay": 0.01, "betas": [0.9, 0.999]}
    assert arguments["train_length"] == 64
    assert arguments["optimizer"] == {"class_path": "gau_alpha.training.optimizers.AdamW", "init_args": rates}
    assert arguments["schedule"]["class_path"].endswith("Linear")
    assert arguments["schedule"]["init_args"] == {"warmup": 0.1, "final": 0.0}
    assert last["run"]["config"]["data"]["init_args"]["batch_size"] == 128
    assert last["optimizer_states"][0]["param_groups"][0]["betas"] == (0.9, 0.999)
    # the first six layers, moved by AdamW at a rate of 1e-5 for at most 40 steps
    assert arguments["config"]["num_hidden_layers"] == 6
    for name, tensor in last["state_dict"].items():
        torch.testing.assert_close(tensor, published[name.removeprefix("model.")], atol=40e-5, rtol=1e-3)
    assert not torch.equal(
        last["state_dict"]["model.gau_alpha.encoder.layer.5.gau.o_dense.weight"],
        published["gau_alpha.encoder.layer.5.gau.o_dense.weight"],
    )


def test_the_folder_that_training_leaves(published, tmp_path, capsys):
    cosine = ["--model.method.similarity", "CosScale", "--model.method.similarity.init_args.scale", "128"]
    fit(*cosine, "--trainer.max_epochs", "2")
    folder = tmp_path / "runs/paper_finetune/v"
    names = {"config.json", "model.safetensors", "modeling_gau_alpha.py", "README.md", "training_data.json"}
    names |= {"vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert {path.name for path in (folder / "huggingface").iterdir()} == names
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    exported = load_file(folder / "huggingface/model.safetensors")
    assert len(exported) == 2 + 6 * 4
    assert all(torch.equal(tensor, last[f"model.{name}"]) for name, tensor in exported.items())
    stored = json.loads((folder / "huggingface/config.json").read_text())
    assert (stored["normalization"], stored["norm_method"], stored["CosScale_value"]) == ("softmax", "CosScale", 128)
    assert (stored["train_length"], stored["pad_token_id"]) == (64, 0)
    assert isinstance(GAUAlphaForMaskedLM.from_pretrained(folder / "huggingface").method.similarity, CosScale)
    card = (folder / "huggingface/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "unknown"
    assert "CosScale(scale=128" in card
    assert "WordPieceVocab" in card
    capsys.readouterr()
    assert main(["fill-mask", "--model", str(folder / "huggingface"), "甲乙丙丁[MASK]己庚辛。"]) == 0
    assert "0." in capsys.readouterr().out


def test_a_wrong_licence_is_named_before_training(published, tmp_path, capsys):
    callback = {"class_path": "callbacks.export.ExportHuggingFace", "init_args": {"licence": "do what you want"}}
    with pytest.raises(AssertionError):
        fit("--trainer.callbacks", json.dumps([callback]))
    assert "licence must be" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_size_that_differs_from_the_base_is_one_message(published, capsys):
    with pytest.raises(AssertionError):
        fit("--model.config.hidden_size", "32")
    error = capsys.readouterr().err
    assert "hidden_size is 16 there and 32 here" in error
    assert "Traceback" not in error
