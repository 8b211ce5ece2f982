"""What one does in a notebook: open a checkpoint, encode, swap a method, measure texts that one has at hand."""

import ast
import math
import shutil
import subprocess
import sys

import datasets
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from pages import ROOT, blocks, section
from torch.utils.data import DataLoader

import gau_alpha
from datamodules import ByteTokenizer
from gau_alpha import AttentionMethod, ExtrapolationEngine, GAUAlphaConfig, GAUAlphaForMaskedLM, GAUAlphaModule, Report
from gau_alpha.cli import main
from gau_alpha.extrapolation.protocols import MaskedTokens
from gau_alpha.position import PoSE
from gau_alpha.scaling import InfoScale

TEXTS = [f"text number {number} has a few words of its own, and no more than that. " * 3 for number in range(6)]


def test_a_checkpoint_gives_model_tokenizer_and_data(run):
    loaded = gau_alpha.load(run.checkpoint)
    expected = GAUAlphaModule.load_from_checkpoint(run.checkpoint).model
    assert all(map(torch.equal, loaded.model.state_dict().values(), expected.state_dict().values()))
    assert not loaded.model.training
    assert loaded.tokenizer.encode("ab") == [97, 98]
    assert loaded.train_length == 16
    assert loaded.data.train_length == 16
    assert type(loaded.data).__name__ == "TextDataModule"


def test_a_folder_gives_model_and_tokenizer(run, tmp_path):
    assert main(["convert", str(run.checkpoint), str(tmp_path / "folder"), "--weights_only"]) == 0
    loaded = gau_alpha.load(tmp_path / "folder")
    assert (loaded.train_length, loaded.tokenizer.encode("ab")) == (16, [97, 98])
    with pytest.raises(ValueError, match="folder does not say what data it was trained on"):
        loaded.data  # noqa: B018


def test_methods_go_by_name_or_are_refused_at_once(run):
    loaded = gau_alpha.load(run.checkpoint)
    ids = torch.tensor([loaded.tokenizer.encode(TEXTS[0])])
    with torch.no_grad():
        plain = loaded.model(ids)
        with loaded.using("infoscale") as model:
            assert isinstance(model.method.scaling, InfoScale)
            assert model.method.scaling.train_length == 16
            assert not torch.equal(model(ids), plain)
        assert torch.equal(loaded.model(ids), plain)
    with pytest.raises(ValueError, match="infoscal"), loaded.using("infoscal"):
        raise AssertionError("there is no such method")


@pytest.fixture
def model():
    torch.manual_seed(1)
    return GAUAlphaForMaskedLM(GAUAlphaConfig(258, 16, 24, 8, 2, initializer_range=0.3)).eval()


KINDS = {
    "list": (TEXTS, {}),
    "dataset": (datasets.Dataset.from_dict({"text": TEXTS}), {}),
    "frame": (pd.DataFrame({"body": TEXTS, "other": 1}), {"column": "body"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_at_hand_are_measured(model, kind):
    texts, options = KINDS[kind]
    engine = ExtrapolationEngine.for_texts(
        texts, ByteTokenizer(), 16, length_ratios=[1, 4], num_resamples=10, **options
    )
    methods = {"trained": AttentionMethod(), "infoscale": AttentionMethod(scaling=InfoScale())}
    report = Report(list(engine.evaluate(model, methods)))
    frame = report.to_pandas()
    assert list(zip(frame["method"], frame["length"], strict=True)) == [
        (name, length) for length in (16, 64) for name in methods
    ]
    assert frame["num_documents"].tolist() == [6] * 4
    assert frame["loss"].tolist() == [row.loss for row in report.rows]


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (KINDS["frame"][0], {}, "no column 'text'; there are body, other"),
        ("one text", {}, "one string; give a list"),
        ([*TEXTS, 3], {}, "must be a string, got 3"),
    ],
)
def test_what_is_no_text_is_refused(texts, options, message):
    with pytest.raises(ValueError, match=message):
        ExtrapolationEngine.for_texts(texts, ByteTokenizer(), 16, **options)


def test_losses_of_documents_are_those_of_the_model_on_each(model):
    engine = ExtrapolationEngine.for_texts(TEXTS, ByteTokenizer(), 16, length_ratios=[1, 4], num_resamples=10)
    found = engine.document_losses(model, length_ratio=4)
    assert [one["document"] for one in found] == list(range(6))
    assert isinstance(engine.protocol, MaskedTokens)
    for example, one in zip(engine.spans.examples(64), found, strict=True):
        ids, positions, labels = map(torch.from_numpy, engine.spans.batch([example], 64))
        with torch.no_grad():
            logits = model(ids)[0, positions[0]]
        assert one["loss"] == pytest.approx(F.cross_entropy(logits, labels[0]).item(), rel=1e-5)
        assert one["accuracy"] == pytest.approx((logits.argmax(-1) == labels[0]).double().mean().item())
        assert one["num_targets"] == len(labels[0])
    whole = next(row for row in engine.evaluate(model, {"trained": AttentionMethod()}) if row.length == 64)
    total = sum(one["loss"] * one["num_targets"] for one in found) / sum(one["num_targets"] for one in found)
    assert whole.loss == pytest.approx(total)
    with pytest.raises(ValueError, match=r"length_ratio=3 is none of the options' \[1, 4\]"):
        engine.document_losses(model, length_ratio=3)


def test_entropies_of_a_text_are_those_of_its_weights(model):
    ids = ByteTokenizer().encode(TEXTS[0])
    weights = {}

    def observer(layer, block, query_index, key_index, entropy, sink):
        assert torch.equal(query_index, key_index), "a short text is one block"
        weights[layer] = block[0, 0]

    with torch.no_grad():
        model.encode(torch.tensor([ids]), observer=observer)
    expected = [-(w * w.clamp_min(1e-30).log()).sum(-1).mean().item() for w in (weights[0], weights[1])]
    assert gau_alpha.attention_entropies(model, ids) == pytest.approx(expected, rel=1e-4)
    assert 0 < expected[0] < math.log(len(ids))
    with pytest.raises(ValueError, match="the ids of one text"):
        gau_alpha.attention_entropies(model, [[1, 2]])


def test_the_guides_lines_run_and_print_what_they_promise(run, tmp_path, capsys):
    (block,) = blocks(section(ROOT / "docs/measuring.md", "In a notebook"), "python")
    place = tmp_path / "runs/demo/softmax/checkpoints/last.ckpt"
    place.parent.mkdir(parents=True)
    shutil.copy(run.checkpoint, place)
    capsys.readouterr()
    exec(compile(block, "measuring.md", "exec"), {})
    plain, scaled, *table = capsys.readouterr().out.strip().splitlines()
    assert len(ast.literal_eval(plain)) == len(ast.literal_eval(scaled)) == 2
    assert plain != scaled
    assert table[0].split() == ["method", "length", "perplexity"]
    assert [line.split()[1:3] for line in table[1:5]] == [
        [name, length] for length in ("16", "64") for name in ("trained", "infoscale")
    ]
    assert [one["document"] for one in ast.literal_eval("".join(table[5:]))] == [0, 1]


CONFIG = GAUAlphaConfig(30, 16, 24, 8, 2)


def rows():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 30, (8, 12), generator=generator)
    return [{"input_ids": one, "labels": one.where(torch.arange(12) < 3, -100)} for one in ids]


@pytest.mark.slow
def test_a_plain_trainer_and_a_plain_loader_do(tmp_path):
    trainer = Trainer(
        accelerator="cpu", max_steps=2, logger=False, default_root_dir=tmp_path, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = GAUAlphaModule(CONFIG, train_length=12)
    trainer.fit(module, DataLoader(rows(), batch_size=4), DataLoader(rows(), batch_size=4))
    (measured,) = trainer.validate(module, DataLoader(rows(), batch_size=4), verbose=False)
    assert math.isfinite(measured["validation/loss"])
    found = trainer.predict(module, DataLoader(rows(), batch_size=4))
    assert set(found[0]) == {"num_tokens", "mean", "first"}
    with torch.no_grad():
        hidden = module.model.eval()(torch.stack([row["input_ids"] for row in rows()]), head=False)
    torch.testing.assert_close(torch.cat([one["mean"] for one in found]), hidden.mean(1))


def test_positions_that_are_drawn_by_row_ask_for_the_numbers_of_rows():
    module = GAUAlphaModule(CONFIG, 12, AttentionMethod(position=PoSE(64)))
    with pytest.raises(ValueError, match=r"PoSE.* draws position ids by the number of a row: give batches sample_ids"):
        module.training_step(next(iter(DataLoader(rows(), batch_size=4))), 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "left_out"),
    [
        ("from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM", {"lightning"}),
        ("from gau_alpha.cli import main; main(['--help'])", {"lightning", "torch"}),
        ("from gau_alpha.cli import main; main(['methods'])", {"lightning"}),
    ],
)
def test_nothing_is_imported_before_it_is_needed(code, left_out):
    """Lightning, datasets and matplotlib take seconds."""
    code += "; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.splitlines()[-1].split())
    assert "gau_alpha" in modules
    assert not modules & {"datasets", "matplotlib", "transformers", "pandas", *left_out}
