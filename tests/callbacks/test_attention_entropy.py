"""The callback logs what a loop over the weights gives, at the right steps, and leaves training as it was."""

import math
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from callbacks.attention_entropy import AttentionEntropy
from gau_alpha import AttentionMethod, GAUAlphaConfig
from gau_alpha.normalizer import SinkSoftmax
from gau_alpha.training.module import GAUAlphaModule

LENGTH = 16


class Rows(LightningDataModule):
    """Padded rows, shuffled by the global generator."""

    def train_dataloader(self):
        tokens = torch.from_numpy(np.random.default_rng(9).integers(2, 30, size=(24, LENGTH)))
        return DataLoader(list(tokens), batch_size=4, shuffle=True, collate_fn=self._collate)

    def _collate(self, rows):
        input_ids = torch.stack(rows)
        labels = torch.full_like(input_ids, -100)
        mask = torch.ones_like(input_ids)
        for row in range(len(rows)):
            place = random.randrange(LENGTH // 2)
            labels[row, place], input_ids[row, place] = input_ids[row, place].item(), 1
            mask[row, LENGTH - row :] = 0
        return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


def fit(folder, *callbacks, max_steps=7, method=None):
    torch.manual_seed(1)
    random.seed(1)
    config = GAUAlphaConfig(30, 16, 24, 8, 2, initializer_range=0.5)
    module = GAUAlphaModule(config, LENGTH, method)
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", logger=CSVLogger(folder), callbacks=list(callbacks),
        max_steps=max_steps, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, datamodule=Rows())
    return trainer, module


class Remembering(AttentionEntropy):
    """Keeps the batches it measured and what the weights were then."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def _measure(self, trainer, pl_module, batch):
        super()._measure(trainer, pl_module, batch)
        weights = {name: tensor.clone() for name, tensor in pl_module.model.state_dict().items()}
        self.seen.append((trainer.global_step, batch, weights, pl_module.model.training))


@pytest.mark.slow
@pytest.mark.parametrize("distances", [False, True])
@pytest.mark.parametrize("method", [None, AttentionMethod(normalizer=SinkSoftmax(0.5))], ids=["softmax", "sink"])
def test_logs_means_over_real_tokens_by_layer(tmp_path, method, distances):
    callback = Remembering(3, distances)
    rows = {}
    original = CSVLogger.log_metrics

    def note(self, metrics, step=None):
        if "attention/entropy/mean" in metrics:
            rows[step] = dict(metrics)
        original(self, metrics, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CSVLogger, "log_metrics", note)
        _, module = fit(tmp_path, callback, method=method)
    assert list(rows) == [3, 6]
    for step, batch, weights, training in callback.seen:
        assert training, "train/eval flags are as before"
        module.model.load_state_dict(weights)
        module.eval()
        entropy, near, sink, count = np.zeros(2), np.zeros(2), np.zeros(2), 0

        def observe(layer, block, queries, keys, _, sinks, batch=batch, entropy=entropy, near=near, sink=sink):
            assert torch.equal(queries, keys)
            for row, query in batch["attention_mask"].nonzero().tolist():
                sink[layer] += 0 if sinks is None else sinks[row, 0, query].item()
                for key, a in enumerate(block[row, 0, query].tolist()):
                    entropy[layer] -= a * math.log(a) if a > 0 else 0
                    near[layer] += a if abs(query - key) <= LENGTH // 2 else 0

        with torch.no_grad():
            module.model(batch["input_ids"], batch["attention_mask"], observer=observe)
        count = int(batch["attention_mask"].sum())
        assert count == 4 * LENGTH - 6
        for layer in range(2):
            assert rows[step][f"attention/entropy/layer_{layer:02}"] == pytest.approx(entropy[layer] / count, rel=1e-5)
            if distances:
                assert rows[step][f"attention/near/layer_{layer:02}"] == pytest.approx(near[layer] / count, rel=1e-5)
        assert rows[step]["attention/entropy/mean"] == pytest.approx(entropy.mean() / count, rel=1e-5)
        assert ("attention/near/mean" in rows[step]) == distances
        assert rows[step].get("attention/sink/mean", 0) == pytest.approx(sink.mean() / count, rel=1e-5)
        assert ("attention/sink/layer_00" in rows[step]) == (method is not None) == bool(sink.all())


@pytest.mark.slow
def test_training_is_bit_identical_with_and_without(tmp_path):
    _, without = fit(tmp_path / "a")
    after = random.random(), torch.rand(2).tolist()
    _, having = fit(tmp_path / "b", AttentionEntropy(1, distances=True))
    assert (random.random(), torch.rand(2).tolist()) == after
    for name, tensor in without.state_dict().items():
        assert torch.equal(tensor, having.state_dict()[name]), name


def test_wrong_interval():
    with pytest.raises(ValueError, match="every_n_train_steps must be at least 1, got 0"):
        AttentionEntropy(0)
