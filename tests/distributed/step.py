"""One optimizer step on eight rows, on as many processes as started it; the first saves the weights."""

import os
import sys

import torch
from lightning.pytorch import Trainer
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from gau_alpha import GAUAlphaConfig, GAUAlphaModule
from gau_alpha.sharding import ShardedStrategy

STRATEGIES = {"auto": lambda: "auto", "ddp": lambda: "ddp", "fsdp": ShardedStrategy}


class PlainDescent(GAUAlphaModule):
    """Moves each weight by its gradient; AdamW would turn the rounding of a tiny gradient into a whole step."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def rows():
    """Eight rows with very different numbers of targets, two of them without any."""
    generator = torch.Generator().manual_seed(3)
    for count in (0, 12, 0, 1, 1, 11, 2, 5):
        ids = torch.randint(2, 20, (12,), generator=generator)
        yield {"input_ids": ids, "labels": torch.where(torch.arange(12) < count, ids, -100)}


if __name__ == "__main__":
    processes, batch_size, accumulate = map(int, sys.argv[1:4])
    torch.manual_seed(0)
    config = GAUAlphaConfig(
        20, 16, 24, 8, 2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3
    )
    module = PlainDescent(config, train_length=12)
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=STRATEGIES[sys.argv[5]](),
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(list(rows()), batch_size))
    weights = {  # gathered by all processes, written by the first
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in module.state_dict().items()
    }
    if trainer.is_global_zero:
        torch.save(weights, sys.argv[4])
    # The way out of Python, where torch's C++ threads are torn down, now and then aborts a process that is done.
    os._exit(0)
