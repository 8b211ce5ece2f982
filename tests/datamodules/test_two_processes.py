"""Lightning with two processes: our sampler stays, and the ranks share out the rows."""

import json
from pathlib import Path

import lightning
import pytest
import torch

from datamodules.sampling import EpochSampler

pytestmark = pytest.mark.slow


class RankRecorder(lightning.LightningModule):
    """Each rank writes the sample ids it saw to a file of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.folder = folder

    def _write(self, stage: str, batch) -> None:
        with (self.folder / f"{stage}{self.global_rank}").open("a") as file:
            file.write(json.dumps([self.current_epoch, batch["sample_ids"].tolist()]) + "\n")

    def training_step(self, batch, batch_idx):
        self._write("train", batch)
        return self.layer(torch.ones(1)).sum()

    def validation_step(self, batch, batch_idx):
        self._write("val", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.slow
def test_ranks_share_every_epoch(make_data, tmp_path: Path):
    data = make_data(batch_size=4)
    lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    ).fit(RankRecorder(tmp_path), datamodule=data)

    def seen(stage: str, rank: int, epoch: int) -> list[list[int]]:
        lines = map(json.loads, (tmp_path / f"{stage}{rank}").read_text().splitlines())
        return [rows for seen_in, rows in lines if seen_in == epoch]

    # The same global batches as one process with batches twice as large.
    alone = make_data(batch_size=8)
    for epoch in range(2):
        for stage, loader in (("train", alone.train_dataloader()), ("val", alone.val_dataloader())):
            sampler: EpochSampler = loader.sampler
            sampler.set_epoch(epoch)
            together = [
                [row for row in first + second if row >= 0]
                for first, second in zip(seen(stage, 0, epoch), seen(stage, 1, epoch), strict=True)
            ]
            assert together == [request.rows.tolist() for request in sampler]
