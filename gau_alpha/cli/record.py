"""What a run leaves beside its results so that it can be done again."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.export import KnowsTrainingData
from callbacks.recovery.identity import identity_of
from callbacks.run_path import run_path
from gau_alpha.checkpoints import RUN_KEY, TOKENIZER_KEY, tokenizer_files
from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.checkpoints.chosen_weights import WEIGHTS_KEY
from gau_alpha.cli.past import Past
from gau_alpha.cli.provenance import environment_info
from gau_alpha.cli.splits import training_data


class RunRecord(SaveConfigCallback, KnowsTrainingData):
    """Saves the resolved config (``config.yaml``), surroundings and world layout (``run.json``).

    They lie beside the logs, and in every checkpoint.

    Existing files are never overwritten: a run that goes on in its folder writes ``config_1.yaml`` and so on.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write both files, on the first process."""
        data: Any = getattr(trainer, "datamodule", None)
        tokenizer = getattr(data, "tokenizer", None)
        # read once: the file may change while the run goes on
        self._tokenizer = {} if tokenizer is None else tokenizer_files(tokenizer)
        self._fingerprint = None if tokenizer is None else tokenizer.fingerprint()
        self._past = Past()
        if stage == "fit" and not trainer.ckpt_path:  # or what is resumed brings it
            self._past.begin(self.config.model.get("init_from"))
        self._data = None if stage != "fit" or not hasattr(data, "identity") else data.identity()
        if self.already_saved or (stage != "fit" and not trainer.loggers):
            return  # an evaluation that logs nowhere leaves no files but those it is asked for
        if trainer.is_global_zero:
            folder = run_path(trainer)
            text = self.parser.dump(self.config, skip_unset=False)
            write_atomic(_free(folder / "config.yaml"), lambda path: path.write_text(text, encoding="utf-8"))
            record = json.dumps(_record(trainer), indent=2) + "\n"
            write_atomic(_free(folder / "run.json"), lambda path: path.write_text(record, encoding="utf-8"))
        self.already_saved = True

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over what the weights have seen so far.

        Raises:
            ValueError: If the checkpoint's record is none.
        """
        if trainer.state.fn is TrainerFn.FITTING:
            self._past.go_on(checkpoint)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count what was trained on."""
        self._past.count(batch)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the record into the checkpoint, as plain data."""
        checkpoint[RUN_KEY] = self._of_run(trainer)

    def training_data(
        self, trainer: Trainer, pl_module: LightningModule, weights: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Say what the weights have been trained on so far, as a checkpoint that is saved now does; a collective.

        Args:
            trainer: The run's.
            pl_module: Its module.
            weights: ``raw`` or ``averaged``: which weights of it are meant.
        """
        run = self._of_run(trainer)
        arguments = dict(pl_module.hparams)
        saved = {"global_step": trainer.global_step, WEIGHTS_KEY: weights, "hyper_parameters": arguments, RUN_KEY: run}
        return training_data(saved, "the run"), run["config"]["data"]

    def _of_run(self, trainer: Trainer) -> dict[str, Any]:
        config = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))
        read = {"tokenizer": self._tokenizer, TOKENIZER_KEY: self._fingerprint, "data": self._data}
        return {"config": config, **read, **self._past.record(trainer), **_record(trainer)}


def changes(
    before: Any, now: Any, name: str = "", before_is: str = "in the checkpoint", now_is: str = "here"
) -> list[str]:
    """List what differs between two configs.

    Args:
        before: Plain data.
        now: Plain data.
        name: Of both, for the messages.
        before_is: Where or when the first one holds.
        now_is: Where or when the second one does.

    Returns:
        A line per value: its name, what it was and what it is.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        found = [
            changes(before.get(key), now.get(key), f"{name}.{key}" if name else str(key), before_is, now_is)
            for key in keys
        ]
        return [line for lines in found for line in lines]
    return [] if before == now else [f"{name}: {before!r} {before_is}, {now!r} {now_is}"]


def _record(trainer: Trainer) -> dict[str, Any]:
    device = trainer.strategy.root_device
    world = {
        "processes": trainer.world_size,
        "nodes": trainer.num_nodes,
        "strategy": type(trainer.strategy).__name__,
        "precision": str(trainer.precision),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
    }
    return {**identity_of(trainer), "world": world, **environment_info()}


def _free(path: Path) -> Path:
    candidate, number = path, 0
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}_{number}")
    return candidate
