"""How Lightning's checkpoints are written and read: whole, with a checksum, as plain data."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from gau_alpha.checkpoints import append_checksum, check_training_state, load_plain
from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.checkpoints.chosen_weights import choose

_PATH = str | os.PathLike[str]


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name, with a checksum, and renames it when it is on the disk.

    What it writes, plain Lightning and torch read too.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        """Write a checkpoint. What lies under the name stays until the new one is whole.

        Args:
            checkpoint: Plain data and tensors.
            path: The file; its folder is created.
            storage_options: Not for files; must be None.

        Raises:
            NotWrittenError: If the disk is full.
            TypeError: If ``storage_options`` are given.
        """
        if storage_options is not None:
            raise TypeError("storage_options are not for files.")

        def write(unfinished: Path) -> None:
            # A Python file: torch's own writer hides why a write failed.
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
            append_checksum(unfinished)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())  # or a power cut could leave the new name without the content

        write_atomic(Path(path), write)

    def load_checkpoint(
        self,
        path: _PATH,
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, as plain data whatever ``weights_only`` says, into the memory of the CPU.

        Args:
            path: The file.
            map_location: Not used: Lightning puts tensors where they belong.
            weights_only: Not used: nothing but plain data is ever read.

        Raises:
            ValueError: If it is missing, damaged, or holds anything but plain data, which is named; nothing is run.
        """
        if not Path(path).is_file():
            raise ValueError(f"There is no checkpoint {path}.")
        checkpoint = load_plain(Path(path))
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
            raise ValueError(f"{path} is not a checkpoint: it has no state_dict.")
        choose(checkpoint, str(path))
        check_training_state(checkpoint, str(path))
        return checkpoint
