"""Exported folders under the Auto classes of ``transformers``, and what its Trainer and pipelines make of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
import torch.nn.functional as F
from pages import ROOT, blocks, section

from datamodules import ByteTokenizer, CharacterTokenizer, TokenizerFile, WordPieceVocab
from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.checkpoints import fast_tokenizer_files, tokenizer_files, write_folder
from gau_alpha.finetuning import (
    GAUAlphaForMultipleChoice,
    GAUAlphaForQuestionAnswering,
    GAUAlphaForSequenceClassification,
    GAUAlphaForTokenClassification,
)
from gau_alpha.position import KerpleLog
from gau_alpha.scaling import CalibratedScale, InfoScale, ScalableSoftmax
from gau_alpha.similarity import CosScale
from gau_alpha.visibility import Window

transformers = pytest.importorskip("transformers", reason="transformers is optional; the test extra has it")
import gau_alpha.checkpoints.transformers as auto  # noqa: E402  (after the question whether it is there)

CONFIG = GAUAlphaConfig(258, 16, 24, 8, 2, initializer_range=0.3)
METHODS = {
    "plain": AttentionMethod(),
    "window": AttentionMethod(CosScale(4.0), InfoScale(train_length=16), visibility=Window(radius=3)),
    "learned": AttentionMethod(CosScale(4.0), ScalableSoftmax(train_length=16), KerpleLog()),
    "table": AttentionMethod(scaling=CalibratedScale(lengths=[16, 64], temperatures=[[1.0, 1.2], [1.0, 1.3]])),
}


def batch():
    """Three rows, two of them padded."""
    ids = torch.randint(0, 256, (3, 40))
    mask = (torch.arange(40) < torch.tensor([[40], [25], [7]])).long()
    return {"input_ids": ids.where(mask == 1, 256), "attention_mask": mask}


def export(folder, method=METHODS["plain"], model=None):
    """Write a model with its tokenizer, as ``convert`` and ``ExportHuggingFace`` do."""
    model = model or GAUAlphaForMaskedLM(CONFIG, method)
    for parameter in model.gau_alpha.encoder.layer[1].gau.method.parameters():
        torch.nn.init.uniform_(parameter, 0.5, 1.0)  # each layer has its own
    head = None if isinstance(model, GAUAlphaForMaskedLM) else model.describe_head()
    write_folder(folder, CONFIG, method, model.state_dict(), 16, 256, head, getattr(model, "labels", ()))
    for name, text in fast_tokenizer_files(tokenizer_files(ByteTokenizer())).items():
        (folder / name).write_text(text)
    return model.eval()


@pytest.mark.parametrize("name", METHODS)
def test_logits_are_ours_padded_rows_too(tmp_path, name):
    ours = export(tmp_path, METHODS[name])
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    base = transformers.AutoModel.from_pretrained(tmp_path)
    assert not theirs.training
    assert theirs.ours.method.describe() == METHODS[name].describe()
    assert json.loads((tmp_path / "config.json").read_text())["attention_method"] == METHODS[name].describe()
    rows = batch()
    with torch.no_grad():
        torch.testing.assert_close(theirs(**rows).logits, ours(**rows), atol=1e-5, rtol=0)
        hidden = ours(**rows, head=False)
        torch.testing.assert_close(base(**rows).last_hidden_state, hidden, atol=1e-5, rtol=0)
        torch.testing.assert_close(base(**rows, return_dict=False)[0], hidden, atol=1e-5, rtol=0)


def test_the_loss_is_the_mean_over_labels(tmp_path):
    export(tmp_path)
    model, rows = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path), batch()
    labels = rows["input_ids"].where(torch.arange(40) % 5 == 0, -100)
    output = model(**rows, labels=labels)
    kept = labels != -100
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits[kept], labels[kept]))
    assert model(**rows, labels=torch.full_like(labels, -100)).loss == 0


def test_a_folder_that_transformers_has_saved_is_ours_again(tmp_path):
    ours = export(tmp_path / "one", METHODS["learned"])
    transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert names == {"config.json", "model.safetensors", "modeling_gau_alpha.py"}
    again = GAUAlphaForMaskedLM.from_pretrained(tmp_path / "two")
    assert again.method.describe() == METHODS["learned"].describe()
    assert all(map(torch.equal, again.state_dict().values(), ours.state_dict().values()))


def test_built_from_a_config_it_is_drawn_and_tied(tmp_path):
    export(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    model = transformers.AutoModelForMaskedLM.from_config(config)
    words = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is words
    assert 0.25 < words.std() < 0.35
    assert transformers.AutoModel.from_config(
        auto.GAUAlphaConfig(vocab_size=20, num_hidden_layers=1)
    ).dtype.is_floating_point


HEADS = {
    "AutoModelForSequenceClassification": (GAUAlphaForSequenceClassification, ("a", "b", "c")),
    "AutoModelForTokenClassification": (GAUAlphaForTokenClassification, ("a", "b", "c")),
    "AutoModelForMultipleChoice": (GAUAlphaForMultipleChoice, ()),
    "AutoModelForQuestionAnswering": (GAUAlphaForQuestionAnswering, ()),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_ours(tmp_path, name):
    kind, labels = HEADS[name]
    ours = export(tmp_path, model=kind(CONFIG, labels=labels))
    theirs = getattr(transformers, name).from_pretrained(tmp_path)
    rows = batch()
    if name == "AutoModelForMultipleChoice":
        rows = {key: x[None].expand(2, -1, -1) for key, x in rows.items()}  # (2, 3, 40)
    answers = {
        "AutoModelForSequenceClassification": torch.tensor([0, 2, 1]),
        "AutoModelForTokenClassification": torch.randint(0, 3, (3, 40)).where(rows["attention_mask"] == 1, -100),
        "AutoModelForMultipleChoice": torch.tensor([2, 0]),
        "AutoModelForQuestionAnswering": torch.tensor([[3, 5], [0, 0], [2, 4]]),
    }[name]
    with torch.no_grad():
        logits, outcome = ours(**rows), ours.evaluate({**rows, "labels": answers})
        if name == "AutoModelForQuestionAnswering":
            found = theirs(**rows, start_positions=answers[:, 0], end_positions=answers[:, 1])
            assert torch.equal(torch.stack([found.start_logits, found.end_logits], -1), logits)
        else:
            found = theirs(**rows, labels=answers)
            torch.testing.assert_close(found.logits, logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.loss, outcome.nll / outcome.count)
    if labels:
        assert tuple(theirs.config.id2label.values()) == labels


def test_a_new_head_is_drawn_for_as_many_labels_as_asked_for(tmp_path):
    export(tmp_path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    assert model(**batch()).logits.shape == (3, 5)
    assert 0.2 < model.ours.classifier.weight.std() < 0.4
    assert not model.ours.classifier.bias.any()


def test_the_guides_lines_run(tmp_path, capsys):
    export(tmp_path, METHODS["window"])
    (block,) = blocks(section(ROOT / "docs/hugging_face.md", "In transformers"), "python")
    exec(compile(block.replace("FOLDER", str(tmp_path)), "hugging_face.md", "exec"), {})
    shape, *_ = capsys.readouterr().out.splitlines()
    assert shape == f"torch.Size([2, 9, 258]) {METHODS['window'].summary()}"


def test_config_json_of_strangers_stays_data(tmp_path):
    export(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["attention_method"]["scaling"] = {"class_path": "os.mkdir", "init_args": {"path": str(tmp_path / "made")}}
    (tmp_path / "config.json").write_text(json.dumps(stored | {"normalization": None, "norm_method": None}))
    with pytest.raises(ValueError, match=r"attention_method\.scaling names 'os\.mkdir'"):
        transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(stored | {"sliding_window": 4}))
    with pytest.raises(ValueError, match="not known here: 'sliding_window'"):
        transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert not (tmp_path / "made").exists()


def test_the_fast_tokenizer_encodes_as_training_does(tmp_path):
    export(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"} <= set(os.listdir(tmp_path))
    texts = ["def f(x):\n    return x", "äöü 漢字 \U0001f600", " leading  spaces "]
    ours = ByteTokenizer().encode_batch(texts)
    assert [list(ids) for ids in ours] == [tokenizer(text)["input_ids"] for text in texts]
    assert tokenizer("a[MASK]b")["input_ids"] == [97, 257, 98]
    assert (tokenizer.mask_token_id, tokenizer.pad_token_id) == (257, 256)
    assert tokenizer.decode(ours[1]) == texts[1]
    padded = tokenizer(texts, padding=True, return_tensors="pt")
    assert set(padded) == {"input_ids", "attention_mask"}
    assert padded["input_ids"][2, -1] == 256


def test_an_alphabet_becomes_a_fast_tokenizer(tmp_path):
    ours = CharacterTokenizer("ACGTN")
    for name, text in fast_tokenizer_files(tokenizer_files(ours)).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "config.json").write_text('{"model_type": "gau_alpha"}')
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = ["GATTACA", "NN x\nA", ""]
    assert [ids.tolist() for ids in ours.encode_batch(texts)] == [tokenizer(text)["input_ids"] for text in texts]
    assert tokenizer("A[MASK]C")["input_ids"] == [0, 7, 1]
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (5, 6, 7)
    assert tokenizer.decode([2, 0, 3]) == "GAT"


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", ".", "é"]


def test_a_vocabulary_becomes_a_fast_tokenizer_without_frame(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    ours = WordPieceVocab(str(tmp_path / "vocab.txt"), lowercase=False)
    files = fast_tokenizer_files(tokenizer_files(ours))
    assert fast_tokenizer_files(files) == files
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "config.json").write_text('{"model_type": "gau_alpha"}')
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = ["the cats sat.", "The cat", "é the"]
    assert [list(ids) for ids in ours.encode_batch(texts)] == [tokenizer(text)["input_ids"] for text in texts]
    assert tokenizer("the [MASK] sat")["input_ids"] == [5, 4, 8]
    assert tokenizer.unk_token == "[UNK]"
    assert tokenizer.cls_token == "[CLS]"


def test_a_frame_that_training_never_saw_is_left_out(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    library = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, "[UNK]"))
    library.pre_tokenizer = Whitespace()
    library.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    library.save(str(tmp_path / "tokenizer.json"))
    ours = TokenizerFile(str(tmp_path / "tokenizer.json"))
    for name, text in fast_tokenizer_files(tokenizer_files(ours)).items():
        (tmp_path / name).write_text(text)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert tokenizer("the cat")["input_ids"] == ours.encode_batch(["the cat"])[0].tolist() == [5, 6]


def test_pipelines(tmp_path):
    ours = export(tmp_path)
    fill = transformers.pipeline("fill-mask", model=str(tmp_path), top_k=3)
    found = fill("ab[MASK]d")
    row = torch.tensor([[97, 98, 257, 100]])
    with torch.no_grad():
        best = ours(row)[0, 2].softmax(-1).topk(3)
    assert [one["token"] for one in found] == best.indices.tolist()
    assert [one["score"] for one in found] == pytest.approx(best.values.tolist(), abs=1e-5)
    (features,) = transformers.pipeline("feature-extraction", model=str(tmp_path))("abcd")
    with torch.no_grad():
        hidden = ours(torch.tensor([[97, 98, 99, 100]]), head=False)[0]
    torch.testing.assert_close(torch.tensor(features), hidden, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_transformers_trainer_fits_ten_steps(tmp_path, checkpointing):
    pytest.importorskip("accelerate", reason="transformers' Trainer needs it; the test extra has it")
    export(tmp_path / "start")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "start")
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "start")
    counted = []
    model.ours.gau_alpha.encoder.layer[0].gau.o_dense.register_forward_hook(lambda *_: counted.append(1))
    rows = [tokenizer(f"text number {number}") for number in range(80)]
    arguments = transformers.TrainingArguments(
        str(tmp_path / "run"), max_steps=10, per_device_train_batch_size=8, learning_rate=1e-2, logging_steps=1,
        report_to=[], gradient_checkpointing=checkpointing, save_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3)
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, data_collator=collator)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 10
    assert losses[-1] < losses[0]
    assert len(counted) == (20 if checkpointing else 10), "a checkpointed layer is computed again for the gradient"
    trainer.save_model(tmp_path / "end")
    assert GAUAlphaForMaskedLM.from_pretrained(tmp_path / "end").config == CONFIG


def test_gradient_checkpointing_is_switched_by_their_names(tmp_path):
    export(tmp_path)
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    encoder = model.ours.gau_alpha.encoder
    model.gradient_checkpointing_enable()
    assert encoder.activation_checkpointing
    assert model.is_gradient_checkpointing
    model.gradient_checkpointing_disable()
    assert not encoder.activation_checkpointing


REMOTE = """
import sys
import torch
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline
folder = sys.argv[1]
assert "gau_alpha" not in sys.modules
model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("some text")["input_ids"]])
print(model(ids).logits.sum().item())
print(type(AutoModel.from_pretrained(folder, trust_remote_code=True)).__name__)
print(pipeline("fill-mask", model=folder, trust_remote_code=True)("a[MASK]")[0]["token"])
model.save_pretrained(sys.argv[2])
"""


@pytest.mark.slow
def test_with_trust_remote_code_nothing_needs_to_be_imported_first(tmp_path):
    ours = export(tmp_path / "folder")
    root = str(Path(__file__).parents[3])
    environment = {
        **os.environ,
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REMOTE, str(tmp_path / "folder"), str(tmp_path / "saved")],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    total, name, token = done.stdout.split()
    with torch.no_grad():
        assert float(total) == pytest.approx(ours(torch.tensor([list(b"some text")])).sum().item(), abs=1e-3)
        assert int(token) == ours(torch.tensor([[97, 257]]))[0, 1].argmax()
    assert name == "GAUAlphaModel"
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {"config.json", "model.safetensors", "modeling_gau_alpha.py"}, "no copy of ours goes along"
    code = (tmp_path / "folder/modeling_gau_alpha.py").read_text()
    lines = [line for line in code.splitlines() if line and not line.startswith(("#", " ", ")"))]
    assert lines == ["from gau_alpha.checkpoints.transformers import (  # noqa: F401"]


def test_push_to_hub_uploads_the_folder(tmp_path, monkeypatch):
    """Up to the network: what ``huggingface_hub`` is told to send."""
    export(tmp_path / "folder")
    asked, sent = [], {}

    def create_repo(self, repo_id, **_):
        asked.append(repo_id)
        return SimpleNamespace(repo_id=repo_id)

    def create_commit(self, repo_id, operations, **_):
        sent[repo_id] = {one.path_in_repo: Path(one.path_or_fileobj).read_bytes() for one in operations}

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create_repo)
    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", create_commit)
    monkeypatch.setattr("transformers.utils.hub.create_and_tag_model_card", lambda *_, **__: MagicMock())
    transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "folder").push_to_hub("me/gau")
    assert asked == ["me/gau"]
    assert set(sent["me/gau"]) >= {"config.json", "model.safetensors", "modeling_gau_alpha.py"}
    code = (tmp_path / "folder/modeling_gau_alpha.py").read_bytes()
    assert sent["me/gau"]["modeling_gau_alpha.py"] == code


def test_a_name_on_the_hub_is_looked_up_by_huggingface_hub(tmp_path):
    """Up to the network: as if ``me/gau`` had been downloaded before, into the hub's own cache."""
    repository = tmp_path / "models--me--gau"
    ours = export(repository / "snapshots" / "0123abcd")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0123abcd")
    options = {"cache_dir": tmp_path, "local_files_only": True}
    model = transformers.AutoModelForMaskedLM.from_pretrained("me/gau", **options)
    assert all(map(torch.equal, model.state_dict().values(), ours.state_dict().values()))
    assert transformers.AutoTokenizer.from_pretrained("me/gau", **options).mask_token_id == 257
