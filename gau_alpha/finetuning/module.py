"""The LightningModule that trains a head, and the encoder below it, on labelled text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from gau_alpha import finetuning
from gau_alpha.attention.method import AttentionMethod
from gau_alpha.checkpoints import warm_start_with_head
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.finetuning import HeadedModel
from gau_alpha.training.batch import Batch, numbers
from gau_alpha.training.compatibility import MODULES, stored_arguments
from gau_alpha.training.metrics import TokenAverage
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.training.optimizers import AdamW, OptimizerFactory
from gau_alpha.training.schedules import Linear, Schedule
from gau_alpha.untrusted.escaping import printable
from gau_alpha.untrusted.registry import Registry, exported, shown

Head = Callable[[GAUAlphaConfig, AttentionMethod, str, Sequence[str]], HeadedModel]
"""A class of ``gau_alpha.finetuning`` with its own arguments, called with config, method, kernel and labels."""

HEADS = Registry({HeadedModel: exported(finetuning, HeadedModel)})
"""The heads that a file may name."""


class TaskMetrics(MetricCollection):
    """Average loss in nats per target, by the name ``loss``, and what the head measures.

    Args:
        measured: The head's metrics.
        prefix: Put before the names, such as ``validation/``.
    """

    def __init__(self, measured: Mapping[str, Metric], prefix: str) -> None:
        super().__init__({"loss": TokenAverage(), **measured}, prefix=prefix, compute_groups=False)
        self._measured = list(measured)

    def add(self, nll: Tensor, compared: tuple[Tensor, Tensor], count: Tensor) -> None:
        """Add a batch.

        Args:
            nll: () summed loss in nats.
            compared: What was predicted at the targets, and what was right: (N, …) each.
            count: () number of targets N.
        """
        self["loss"].update(nll, count)
        if len(compared[1]):  # a rank may have had no row left
            for name in self._measured:
                self[name].update(*compared)


class GAUAlphaFineTuning(GAUAlphaModule):
    """Fine-tunes GAU-α with a head on batches of ``input_ids``, ``attention_mask``, ``labels`` and what the head needs.

    The gradient of an optimizer step is that of the mean loss over all its targets, over all ranks and accumulated
    batches.

    Args:
        config: Sizes and rates of the model. On the command line they come from ``init_from`` unless given.
        train_length: Tokens of the longest training row. In a config file it is filled in from the data.
        head: The head and its own arguments, by ``class_path``: a class of ``gau_alpha.finetuning`` or one of yours.
        labels: What the head chooses from. In a config file they are filled in from the data.
        method: The attention method. Default: dot product, no scaling, RoPE, everything visible; on the command line
            that of ``init_from``.
        optimizer: What steps encoder and head, and at which rates. Default: AdamW with a learning rate of 3e-5 and
            betas (0.9, 0.999).
        schedule: How the rate moves over the run. Default: Linear.
        kernel: How attention is computed: ``auto``, ``blocked`` or ``reference``.
        init_from: A Hugging Face folder or a checkpoint to start from; see ``GAUAlphaModule``. A head that it lacks
            starts as new, with a warning that names its tensors.

    Raises:
        ValueError: As ``GAUAlphaModule``, and if the head can't be built for these labels.
    """

    def __init__(
        self,
        config: GAUAlphaConfig,
        train_length: int,
        head: Head,
        labels: Sequence[str] = (),
        method: AttentionMethod | None = None,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        kernel: str = "auto",
        init_from: str | None = None,
    ) -> None:
        if not callable(head):
            raise ValueError(f"head must be a class of gau_alpha.finetuning with its arguments, got {head!r}.")
        if isinstance(labels, str) or not isinstance(labels, Sequence):
            raise ValueError(f"labels must be a list of names, got {labels!r}.")
        self._head = head
        self._labels = tuple(labels)
        super().__init__(config, train_length, method, optimizer, schedule, kernel, init_from)
        self.save_hyperparameters({"head": self.model.describe_head(), "labels": list(labels)}, logger=False)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the head's columns (B, …), and ``sample_ids`` (B,), the numbers of the rows, where there are such."""
        return {**numbers(batch), **self.model.predict(batch)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint's model and head are these, before its weights are loaded.

        Raises:
            ValueError: As in ``GAUAlphaModule``, and if head or labels are others.
        """
        stored, own = checkpoint.get("hyper_parameters", {}), self.model.describe_head()
        head = stored.get("head") if isinstance(stored, dict) else None
        there = head.get("class_path") if isinstance(head, dict) else None
        if there != own["class_path"]:
            holds = shown(there) if there else "a masked language model"
            raise ValueError(
                f"The checkpoint holds {holds}, not {own['class_path']}. To start from its encoder, name it by "
                f"--model.init_from."
            )
        super().on_load_checkpoint(checkpoint)
        if list(stored["labels"]) != list(self._labels):
            raise ValueError(
                f"The checkpoint chooses from {printable(str(stored['labels']))}, the data from {list(self._labels)}."
            )

    @staticmethod
    def default_optimizer() -> OptimizerFactory:
        """Make the optimizer that is taken where none is given: at the rate of a model that has been trained."""
        return AdamW(learning_rate=3e-5, betas=(0.9, 0.999))

    @staticmethod
    def default_schedule() -> Schedule:
        """Make the schedule that is taken where none is given."""
        return Linear()

    def _build_model(self, config: GAUAlphaConfig, method: AttentionMethod, kernel: str) -> HeadedModel:
        return self._head(config, method, kernel, self._labels)

    def _start_from(self, source: str) -> None:
        warm_start_with_head(self.model, source)

    def _build_metrics(self, prefix: str) -> TaskMetrics:
        measured = self.model.metrics()
        return TaskMetrics(dict(measured.items()), prefix)

    @classmethod
    def stored_arguments(cls, stored: dict[str, Any], path: str) -> dict[str, Any]:
        """Hold the hyperparameters of a checkpoint against the constructor; see ``GAUAlphaModule``."""
        if "head" not in stored:
            raise ValueError(f"{path} holds a masked language model: open it with GAUAlphaModule.")
        return stored_arguments(cls, stored, path, MODULES | HEADS)

    def _with_targets(self, batch: Batch) -> Batch:
        return batch

    def _evaluate(self, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        outcome = self.model.evaluate(batch)
        return outcome.nll, (outcome.predicted, outcome.targets), outcome.count


def build_head(description: object, where: str = "The head") -> Head:
    """Prepare a head from plain data, as ``HeadedModel.describe_head`` gives it.

    Args:
        description: The plain data.
        where: What says so, for messages.

    Raises:
        ValueError: If the class is none of ours and none that the user trusts, or an argument does not fit.
    """
    return HEADS.maker(HeadedModel, 4, description, where).build()
