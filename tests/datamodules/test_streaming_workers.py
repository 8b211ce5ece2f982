"""Workers of a stream never wait for ever, and a stream can be overfitted to."""

import os
import subprocess
import sys
import time
from pathlib import Path

import lightning
import pytest
import torch

from datamodules import ByteTokenizer, StreamingTextDataModule, Synthetic

pytestmark = pytest.mark.slow

ENCODES = """
import sys
from datamodules import StreamingTextDataModule, Synthetic, TokenizerFile
data = StreamingTextDataModule(
    Synthetic(num_documents=400), TokenizerFile(sys.argv[1]), 16, 8, validation_documents=100, lanes=2, num_workers=2
)
data.setup()
print(sum(int((batch["sample_ids"] >= 0).sum()) for batch in data.train_dataloader()))
"""


class SlowTokenizer(ByteTokenizer):
    """Takes its time in workers."""

    def __init__(self) -> None:
        self.parent = os.getpid()

    def encode_batch(self, texts):
        time.sleep(0 if os.getpid() == self.parent else 60)
        return super().encode_batch(texts)


def test_workers_that_are_forked_behind_the_parents_threads_do_not_wait(tmp_path: Path, tokenizer_file):
    """With this setting the library encodes in threads, which a forked process does not have."""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true"}
    command = [sys.executable, "-c", ENCODES, tokenizer_file("BPE")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000


def test_a_wait_ends_with_a_message():
    data = StreamingTextDataModule(
        Synthetic(), SlowTokenizer(), 16, 4, validation_documents=2, lanes=1, num_workers=1, worker_timeout=1
    )
    with pytest.raises(ValueError, match=r"No worker has made a batch in 1 seconds.*worker_timeout"):
        next(iter(data.train_dataloader()))


class Recorder(lightning.LightningModule):
    """Writes down every training batch it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(tuple(batch[name].tolist() for name in ("sample_ids", "input_ids", "labels")))
        return self.layer(torch.ones(1)).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_overfitting_sees_the_same_few_batches_with_the_same_masks(tmp_path: Path, num_workers: int):
    recorder = Recorder()
    data = StreamingTextDataModule(
        Synthetic(num_documents=60), ByteTokenizer(), 16, 4, validation_documents=10, window=8, num_workers=num_workers
    )
    lightning.Trainer(
        overfit_batches=2,
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    ).fit(recorder, datamodule=data)
    assert len(recorder.seen) == 6
    assert recorder.seen[0] != recorder.seen[1]
    assert recorder.seen[:2] == recorder.seen[2:4] == recorder.seen[4:]
