"""One optimizer step on eight rows, on as many processes as started it; the first saves the weights."""

import sys

import torch
from torch.utils.data import DataLoader
from worker import bare_trainer, end, whole_weights

from gau_alpha import GAUAlphaConfig, GAUAlphaModule


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
    trainer = bare_trainer(sys.argv[5], processes, accumulate_grad_batches=accumulate)
    trainer.fit(module, DataLoader(list(rows()), batch_size))
    weights = whole_weights(module)  # gathered by all processes, written by the first
    if trainer.is_global_zero:
        torch.save(weights, sys.argv[4])
    end()
