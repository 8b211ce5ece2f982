"""Compiled training: the callbacks measure it, and leave it as it would have been."""

import json
import warnings

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from callbacks.attention_entropy import AttentionEntropy
from callbacks.compilation import CompileBlocks
from callbacks.extrapolation import ExtrapolationEvaluation
from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM, GAUAlphaModule
from gau_alpha.attention.presets import resolve_method
from gau_alpha.scaling import ScalableSoftmax
from gau_alpha.vocabulary import Vocabulary

TRAIN_LENGTH = 16


class Rows(LightningDataModule):
    """Rows of random tokens, each with one target."""

    vocabulary = Vocabulary(30, 1, 0)
    train_length = TRAIN_LENGTH

    def evaluation_documents(self):
        return [torch.randint(2, 30, (40,), generator=torch.Generator().manual_seed(seed)).numpy() for seed in (1, 2)]

    def train_dataloader(self):
        tokens = torch.randint(2, 30, (24, TRAIN_LENGTH), generator=torch.Generator().manual_seed(0))
        labels = torch.full_like(tokens, -100)
        labels[:, 5] = tokens[:, 5]
        tokens[:, 5] = 1
        rows = [{"input_ids": x, "labels": y} for x, y in zip(tokens, labels, strict=True)]
        return DataLoader(rows, batch_size=4)

    def val_dataloader(self):
        return self.train_dataloader()


def in_place(module, backend):
    module.model.compile(backend=backend)
    return module


def wrapped(module, backend):
    module.model = torch.compile(module.model, backend=backend)
    return module


def whole(module, backend):
    return torch.compile(module, backend=backend)


def fit(folder, compiled, backend, callbacks):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(1)
    config = GAUAlphaConfig(30, hidden_size=16, intermediate_size=24, attention_key_size=8, num_hidden_layers=2)
    module = GAUAlphaModule(config, TRAIN_LENGTH, AttentionMethod(scaling=ScalableSoftmax()))
    slopes = [block.gau.method.scaling for block in module.model.gau_alpha.encoder.blocks()]
    before = [{name: value.clone() for name, value in slope.state_dict().items()} for slope in slopes]
    trainer = Trainer(
        max_steps=5, accelerator="cpu", logger=CSVLogger(folder), callbacks=callbacks, num_sanity_val_steps=1,
        limit_val_batches=1, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(compiled(module, backend), datamodule=Rows())
    for slope, old in zip(slopes, before, strict=True):
        assert all(not torch.equal(value, old[name]) for name, value in slope.state_dict().items()), "it learned"
    moments = trainer.optimizers[0].state_dict()["state"]
    return (
        [parameter.tolist() for parameter in module.parameters()],
        {key: {name: torch.as_tensor(value).tolist() for name, value in one.items()} for key, one in moments.items()},
        dict(torch._dynamo.utils.counters["stats"]),  # which of the graphs were compiled
    )


def compare(tmp_path, compiled, backend):
    without = fit(tmp_path / "without", compiled, backend, [])
    assert without[-1]["unique_graphs"] > 0, "nothing was compiled: nothing was tested"
    callbacks = [
        ExtrapolationEvaluation(2, length_ratios=[1, 2], methods=["trained", "infoscale"]),
        AttentionEntropy(1, distances=True),
    ]
    having = fit(tmp_path / "with", compiled, backend, callbacks)
    (path,) = tmp_path.rglob("step_5/extrapolation.json")
    rows = json.loads(path.read_text())["rows"]
    assert [(row["status"], row["num_documents"]) for row in rows] == [("ok", 2)] * 4
    assert all(row["layers"]["attention_entropy"] for row in rows)
    assert having == without, "weights, moments, and the graphs that were compiled"


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [in_place, wrapped, whole])
def test_compiled_training_is_bit_identical_with_and_without(tmp_path, compiled):
    compare(tmp_path, compiled, "aot_eager")


@pytest.mark.slow
def test_with_generated_code_too(tmp_path):
    compare(tmp_path, in_place, "inductor")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["windowed", "streaming_llm", "entmax15"])
def test_generated_code_has_the_gradients_of_plain_code(name):
    """Windows are views that overlap themselves, which torch's generated code differentiates wrongly."""
    torch.manual_seed(0)
    config = GAUAlphaConfig(50, 32, 64, 16, 4, initializer_range=0.3)
    model = GAUAlphaForMaskedLM(config, resolve_method(name, AttentionMethod(), 16)).eval()
    ids, found = torch.randint(50, (2, 64)), []
    for compiled in (False, True):
        for block in model.gau_alpha.encoder.blocks():
            if compiled:
                block.compile(backend="inductor")
        model.zero_grad()
        model(ids).logsumexp(-1).sum().backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert (found[1] - found[0]).abs().max() <= 1e-5 * found[0].abs().max()


def with_callback(module, backend):
    return module


@pytest.mark.slow
def test_the_callback_compiles_training_and_nothing_else(tmp_path):
    plain = fit(tmp_path / "plain", with_callback, None, [])
    with pytest.warns(UserWarning, match="gains nothing on a CPU"):
        compiled = fit(tmp_path / "compiled", with_callback, None, [CompileBlocks("aot_eager")])
    assert plain[-1].get("unique_graphs", 0) == 0 < compiled[-1]["unique_graphs"]
    evaluation = [CompileBlocks("aot_eager"), ExtrapolationEvaluation(2, length_ratios=[1, 2])]
    with pytest.warns(UserWarning, match="gains nothing on a CPU"):
        assert fit(tmp_path / "evaluated", with_callback, None, evaluation) == compiled
    module = GAUAlphaModule(GAUAlphaConfig(30, 16, 24, 8, 2), TRAIN_LENGTH)
    torch._dynamo.utils.counters.clear()
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[CompileBlocks()], enable_progress_bar=False)
    trainer.validate(module, datamodule=Rows(), verbose=False)
    assert not torch._dynamo.utils.counters["stats"].get("unique_graphs")


class ManyLengths(Rows):
    """Batches of one row, each longer than the one before."""

    def train_dataloader(self):
        rows = []
        for length in range(9, 9 + 8 * 5, 5):
            tokens = torch.randint(2, 30, (length,))
            rows.append({"input_ids": tokens, "labels": tokens.where(torch.arange(length) == 5, -100)})
        return DataLoader(rows, batch_size=1)


@pytest.mark.slow
def test_graphs_are_counted_and_a_limit_that_is_hit_is_told():
    """Two kinds of block make two graphs, however many layers there are."""
    for rows, limit, warns in ((Rows(), 8, False), (ManyLengths(), 2, True)):
        torch._dynamo.reset()
        callback = CompileBlocks("aot_eager")
        trainer = Trainer(
            max_steps=5, accelerator="cpu", logger=False, callbacks=[callback], limit_val_batches=0,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        module = GAUAlphaModule(GAUAlphaConfig(30, 16, 24, 8, num_hidden_layers=4), TRAIN_LENGTH)
        with torch._dynamo.config.patch(recompile_limit=limit), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.fit(module, datamodule=rows)
        assert callback.num_graphs == 2
        told = [str(one.message) for one in caught if "run uncompiled" in str(one.message)]
        assert len(told) == warns
    assert "2 times at most" in told[0]


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"backend='inducter' must be one of .*'inductor'"):
        CompileBlocks("inducter")
