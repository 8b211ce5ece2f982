"""A run that is cut and resumed reads exactly what an uninterrupted run reads."""

from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import TextDataModule

BATCHES_PER_EPOCH = 17


class Recorder(lightning.LightningModule):
    """Writes down every training batch it sees."""

    def __init__(self, fail_at: int = -1) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.fail_at = fail_at
        self.seen: list[tuple[list[int], list[list[int]], list[list[int]]]] = []
        self.num_validations = 0

    def training_step(self, batch, batch_idx):
        if self.global_step == self.fail_at:
            raise RuntimeError("out of memory")
        self.seen.append(tuple(batch[name].tolist() for name in ("sample_ids", "input_ids", "labels")))
        return self.layer(torch.ones(1)).sum()

    def validation_step(self, batch, batch_idx):
        self.num_validations += batch_idx == 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def make_run(slow, make_data, tmp_path: Path):
    def run(
        steps: int,
        num_workers: int = 0,
        ckpt_path: Path | None = None,
        fail_at: int = -1,
        every: int = 1,
        every_validation: bool = False,
        val_check_interval: float = 1.0,
        **changes,
    ) -> Recorder:
        data: TextDataModule = make_data(num_workers=num_workers, batch_size=9, **changes)
        recorder = Recorder(fail_at)
        trainer = lightning.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            num_sanity_val_steps=0,
            val_check_interval=val_check_interval,
            callbacks=[
                ModelCheckpoint(
                    tmp_path / "checkpoints",
                    "{step}",
                    **({"every_n_epochs": 1} if every_validation else {"every_n_train_steps": every}),
                    save_top_k=-1,
                    save_on_exception=True,
                    enable_version_counter=False,
                )
            ],
        )
        trainer.fit(recorder, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        assert trainer.num_training_batches == BATCHES_PER_EPOCH
        return recorder

    return run


# Cut inside the first epoch, before and after its last batch, after the first of the second, inside the second;
# every change of the number of workers at one of these.
@pytest.mark.parametrize(
    ("cut", "workers_before", "workers_after"),
    [
        *((cut, *workers) for cut in (10, 16, 17, 18, 22) for workers in ((0, 0), (2, 1))),
        (10, 0, 2),
        (10, 2, 0),
    ],
)
def test_resume_reads_the_remaining_batches(make_run, tmp_path, recwarn, cut: int, workers_before, workers_after):
    whole = make_run(40)
    assert len(whole.seen) == 40
    assert whole.seen[:17] != whole.seen[17:34]

    first = make_run(cut, workers_before)
    assert first.seen == whole.seen[:cut]
    resumed = make_run(40, workers_after, tmp_path / f"checkpoints/step={cut}.ckpt")
    assert resumed.seen == whole.seen[cut:]
    assert not [warning for warning in recwarn if "not resumable" in str(warning.message)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_checkpoint_of_a_longer_run_is_as_good(make_run, tmp_path, num_workers: int):
    """Workers read ahead of the checkpoint; the position must not."""
    whole = make_run(25, num_workers, every=10)
    resumed = make_run(25, num_workers, tmp_path / "checkpoints/step=10.ckpt", every=10)
    assert resumed.seen == whole.seen[10:]


def test_a_resumed_run_can_be_resumed(make_run, tmp_path):
    whole = make_run(25, every=100)
    make_run(5, every=5)
    make_run(12, 2, tmp_path / "checkpoints/step=5.ckpt", every=12)
    resumed = make_run(25, 0, tmp_path / "checkpoints/step=12.ckpt", every=100)
    assert resumed.seen == whole.seen[12:]


def test_resume_validates_as_often(make_run, tmp_path):
    whole = make_run(34)
    assert whole.num_validations == 2
    make_run(10)
    resumed = make_run(34, 0, tmp_path / "checkpoints/step=10.ckpt")
    assert resumed.num_validations == 2


def test_a_batch_whose_step_failed_is_read_again(make_run, tmp_path):
    whole = make_run(25, every=100)
    with pytest.raises(RuntimeError, match="out of memory"):
        make_run(25, fail_at=12, every=100)
    (checkpoint,) = (tmp_path / "checkpoints").glob("step=12*.ckpt")
    resumed = make_run(25, 0, checkpoint, every=100)
    assert resumed.seen == whole.seen[12:]
    assert resumed.num_validations == whole.num_validations == 1


@pytest.mark.slow
def test_resume_from_the_end_of_an_epoch(make_data, tmp_path):
    """The checkpoint that Lightning writes by itself, after validation."""

    def run(epochs: int, ckpt_path: Path | None = None) -> Recorder:
        recorder = Recorder()
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            callbacks=[ModelCheckpoint(tmp_path / "epochs", "{epoch}", save_top_k=-1)],
        )
        trainer.fit(recorder, datamodule=make_data(batch_size=9), ckpt_path=ckpt_path, weights_only=True)
        return recorder

    whole = run(3)
    assert len(whole.seen) == 3 * BATCHES_PER_EPOCH
    for epoch in range(2):
        resumed = run(3, tmp_path / f"epochs/epoch={epoch}.ckpt")
        assert resumed.seen == whole.seen[(epoch + 1) * BATCHES_PER_EPOCH :]


def test_resume_from_a_validation_inside_an_epoch(make_run, tmp_path):
    whole = make_run(30, val_check_interval=6, every_validation=True)
    assert len(whole.seen) == 30
    resumed = make_run(30, 1, tmp_path / "checkpoints/step=12.ckpt", val_check_interval=6, every_validation=True)
    assert resumed.seen == whole.seen[12:]


@pytest.mark.parametrize("changes", [{"seed": 1}, {"train_length": 33}, {"validation_fraction": 0.3}])
def test_other_data_inside_an_epoch_is_an_error(make_run, tmp_path, changes):
    make_run(10)
    with pytest.raises(ValueError, match=r"inside an epoch with (seed|num_rows)="):
        make_run(25, 0, tmp_path / "checkpoints/step=10.ckpt", **changes)


def test_at_the_end_of_an_epoch_the_batch_size_may_change(make_data):
    position = make_data(batch_size=9).train_dataloader().state_dict() | {"batches": BATCHES_PER_EPOCH, "epoch": 4}
    loader = make_data(batch_size=5).train_dataloader()
    loader.load_state_dict(position)
    loader.sampler.set_epoch(5)
    assert len(list(loader)) == len(loader) == 31


def test_position_is_plain_numbers(make_run, tmp_path):
    make_run(10)
    checkpoint = torch.load(tmp_path / "checkpoints/step=10.ckpt", weights_only=True)
    (position,) = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    assert position["epoch"] == 0
    assert position["batches"] == 10
    assert all(type(value) is int for value in position.values())
    assert "datamodule_hyper_parameters" not in checkpoint


@pytest.mark.slow
def test_overfitting_sees_the_same_few_batches_with_the_same_masks(make_data, tmp_path):
    recorder = Recorder()
    lightning.Trainer(
        overfit_batches=2,
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    ).fit(recorder, datamodule=make_data())
    assert len(recorder.seen) == 6
    assert recorder.seen[0] != recorder.seen[1]
    assert recorder.seen[:2] == recorder.seen[2:4] == recorder.seen[4:]
