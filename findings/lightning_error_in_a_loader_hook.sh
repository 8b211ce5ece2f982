#!/bin/sh
# lightning 2.6.6: after an error in a data module's loader hook, DataLoader stays patched, and `predict` of correct
# code fails in the same process.
#
# While Trainer calls predict_dataloader, test_dataloader, … it patches DataLoader.__init__ to remember arguments. One
# would expect the patch to go when the hook raises, say because a file is not there yet. It stays: the context manager
# has no `finally`. In a notebook, where one mends the cause and calls again, every DataLoader made from then on is
# patched twice, and one that was given its batch size by position, DataLoader(rows, 2), is refused by `predict`
# with a message about **kwargs of a DataLoader class of one's own, which there is not. A new process heals it.
#
# Seen with Python 3.11, torch 2.13.0:
#   before the error: predict with DataLoader(rows, 2)              3 batches
#   a hook raises FileNotFoundError; DataLoader.__init__ is what it was: False
#   after it: predict with DataLoader(rows, 2)                      MisconfigurationException
#   after it: predict with DataLoader(rows, batch_size=2)           3 batches
#
# Ends with code 1 if this changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 lightning==2.6.6
cd "$folder"
"$folder/venv/bin/python" - 2>"$folder/warnings" <<'PYTHON'
import sys

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

rows = TensorDataset(torch.arange(6.0)[:, None])


class Model(LightningModule):
    def predict_step(self, batch, batch_index):
        return batch[0]


class Data(LightningDataModule):
    def predict_dataloader(self):
        raise FileNotFoundError("no data yet")


def outcome(data):
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "barebones"), False
    )
    try:
        return f"{len(Trainer(accelerator='cpu', **quiet).predict(Model(), data))} batches"
    except Exception as error:
        return type(error).__name__


original = DataLoader.__init__
seen = [
    outcome(DataLoader(rows, 2)),
    outcome(Data()),
    str(DataLoader.__init__ is original),
    outcome(DataLoader(rows, 2)),
    outcome(DataLoader(rows, batch_size=2)),
]
print(seen)
expected = ["3 batches", "FileNotFoundError", "False", "MisconfigurationException", "3 batches"]
sys.exit(0 if seen == expected else 1)
PYTHON
