"""Weights, gradients and optimizer state dealt over the processes: FSDP2, through Lightning's ModelParallelStrategy."""

from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from gau_alpha.checkpoints import check_training_state, load_plain, read_training_state
from gau_alpha.model import GAUAlphaForMaskedLM


def shard(model: GAUAlphaForMaskedLM, mesh: DeviceMesh | None) -> None:
    """Deal a model's weights over processes, layer by layer; what is no layer is gathered once per forward pass.

    Args:
        model: Changed in place. A second call changes nothing.
        mesh: The processes, as ModelParallelStrategy lays them out; None under other strategies: nothing is done.

    Raises:
        ValueError: If a parameter is a single number, as those of ``ScalableSoftmax``: names it.
    """
    if mesh is None or isinstance(model, FSDPModule):
        return
    if numbers := [name for name, parameter in model.named_parameters() if not parameter.dim()]:
        raise ValueError(
            f"FSDP can't deal a single number over processes, and the method has learned {', '.join(numbers)}: take "
            f"DDP (--trainer ddp.yaml), or one process."
        )
    processes = mesh["data_parallel"]
    for block in model.gau_alpha.encoder.blocks():
        fully_shard(block, mesh=processes)
    fully_shard(model, mesh=processes)  # embeddings and head together: they may share a weight


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes, saved as one plain file that every command reads.

    Args:
        process_group_backend: ``nccl`` or ``gloo``; default: that of the device.
        timeout: How long a process waits for the others before it ends with a message.
    """

    def __init__(self, process_group_backend: str | None = None, timeout: timedelta = timedelta(minutes=30)) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )

    def setup_environment(self) -> None:
        """Lay all processes out in one row; Lightning's own default would cut each matrix instead."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: str | PathLike[str], weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint as plain data, whatever ``weights_only`` says.

        Args:
            checkpoint_path: The file.
            weights_only: Not looked at.

        Raises:
            ValueError: If it is no file, damaged, or holds anything but plain data. A folder with a piece of each
                process is refused too: torch unpickles its index.
        """
        path = Path(checkpoint_path)
        if not path.is_file():
            read_training_state(path)  # says what it is
        content = load_plain(path, mmap=True)
        if not isinstance(content, dict):
            raise ValueError(f"{path} is not a checkpoint: it holds a {type(content).__name__}.")
        check_training_state(content, str(path))
        return super().load_checkpoint(path, weights_only=True)
