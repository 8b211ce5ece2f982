"""One process under NCCL: DDP and FSDP2 train as a single device does."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from gau_alpha import GAUAlphaConfig, GAUAlphaModule
from gau_alpha.training.fsdp import ShardedStrategy
from gau_alpha.training.optimizers import AdamW


class Losses(pl.Callback):
    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())


def losses(strategy, device):
    torch.manual_seed(0)
    config = GAUAlphaConfig(50, 64, 128, 32, 3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    module = GAUAlphaModule(config, 32, optimizer=AdamW(learning_rate=1e-2))
    ids = torch.randint(2, 50, (40, 32), generator=torch.Generator().manual_seed(1))
    labels = ids.where(torch.arange(32) % 4 == 1, -100)
    rows = [{"input_ids": one, "labels": label} for one, label in zip(ids, labels, strict=True)]
    noted = Losses()
    pl.Trainer(
        max_steps=5, accelerator="gpu" if device.type == "cuda" else "cpu", devices=1, strategy=strategy, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[noted],
        use_distributed_sampler=False,  # which would shuffle
    ).fit(module, DataLoader(rows, 8))  # fmt: skip
    return noted.losses


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_one_process(kind, device, note):
    expected = losses("auto", device)
    found = losses("ddp" if kind == "ddp" else ShardedStrategy(), device)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    assert found == pytest.approx(expected, rel=1e-4)
    note("strategy | last of 5 losses | on a single device", kind, f"{found[-1]:.4f}", f"{expected[-1]:.4f}")
