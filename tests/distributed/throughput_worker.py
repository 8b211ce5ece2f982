"""One process of two that train together; prints what is logged of throughput, by a clock that it moves itself.

A batch of process r takes 1 + r seconds to load and 2 to train on; 3 · r tokens of each row of 8 are padding.
"""

import json
import os
import sys
from types import SimpleNamespace
from typing import ClassVar

import torch
from lightning import Trainer
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader
from worker import end

import callbacks.throughput
from callbacks.throughput import TrainingThroughput
from gau_alpha import GAUAlphaConfig, GAUAlphaModule

RANK = int(os.environ["LOCAL_RANK"])
clock = SimpleNamespace(now=0.0)
clock.perf_counter = lambda: clock.now
callbacks.throughput.time = clock


class Noting(Logger):
    """Keeps what the first process logs."""

    name, version = "run", "0"
    rows: ClassVar[list[dict[str, float]]] = []

    def log_metrics(self, metrics, step=None):
        self.rows.append(metrics)

    def log_hyperparams(self, *args, **kwargs):
        pass


class Module(GAUAlphaModule):
    def training_step(self, batch, batch_idx):
        clock.now += 2
        return super().training_step(batch, batch_idx)


def fetch(items):
    clock.now += 1 + RANK
    ids = torch.randint(2, 28, (2, 8))
    return {
        "input_ids": ids,
        "labels": torch.where(torch.arange(8) < 2, ids, -100),
        "attention_mask": (torch.arange(8) < 8 - 3 * RANK).long().expand(2, 8),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_steps=5, log_every_n_steps=2, logger=Noting(),
        callbacks=[TrainingThroughput(peak_flops=1e6)], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=sys.argv[1],
    )  # fmt: skip
    trainer.fit(Module(GAUAlphaConfig(30, 16, 24, 8, 2), 8), DataLoader(range(5), collate_fn=fetch))
    print(json.dumps({"rows": [row for row in Noting.rows if "throughput/mfu" in row]}))
    end()
