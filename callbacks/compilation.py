"""Training with compiled blocks."""

from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo  # where torch's guide to backends of one's own has them
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from gau_alpha.model import GAUAlphaModel


class CompileBlocks(Callback):
    """Compiles the model's blocks with ``torch.compile`` when training begins.

    Evaluations, and whatever else the run does, go on uncompiled, since each length would be compiled anew. Checkpoints
    are those of a run without it. Numbers are rounded differently, and dropout draws others.

    Blocks of one kind share a graph: one for the last layer, which computes targets alone, one for all others; each
    once more for batches with padding, and for each shape, until torch takes a shape as variable. ``num_graphs`` counts
    them. Torch compiles a function only so often (``torch._dynamo.config.recompile_limit``) and then runs it as it is;
    of that there is a warning.

    It is worth a try on a GPU. On a CPU, where matrix products take four fifths of a step and are the same either way,
    compiled steps of six layers took 1.0 to 1.1 times as long as plain ones, and the first one up to 15 s.

    Args:
        backend: One of ``torch.compiler.list_backends()``.

    Raises:
        ValueError: If there is no such backend.
    """

    def __init__(self, backend: str = "inductor") -> None:
        known = torch.compiler.list_backends(exclude_tags=())
        if backend not in known:
            raise ValueError(f"backend={backend!r} must be one of {sorted(known)}.")
        self.backend = backend
        self.num_graphs = 0
        self._warned = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compile the blocks, before a strategy wraps or shards them; say so where it won't pay."""
        if stage != "fit":
            return
        model = pl_module.model
        assert isinstance(model, GAUAlphaModel)
        compile_graph: Callable[..., Any] = torch._dynamo.lookup_backend(self.backend)

        def counted(graph: Any, inputs: Any, **options: Any) -> Any:
            self.num_graphs += 1
            return compile_graph(graph, inputs, **options)

        for block in model.gau_alpha.encoder.blocks():
            block.compile(backend=counted)
        if trainer.strategy.root_device.type == "cpu":
            rank_zero_warn(
                "CompileBlocks gains nothing on a CPU: matrix products take four fifths of a step and stay the same. "
                "Leave the callback out, or train on a GPU."
            )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Warn once when no further graph is compiled."""
        limit = torch._dynamo.config.recompile_limit
        if self.num_graphs >= limit and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"CompileBlocks has compiled {self.num_graphs} graphs, and torch compiles a block {limit} times at "
                f"most: batches of other shapes run uncompiled. Rows of few lengths, all with padding or none, need "
                f"fewer; or raise torch._dynamo.config.recompile_limit."
            )
