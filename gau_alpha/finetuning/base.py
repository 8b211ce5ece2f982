"""What all heads share: an encoder below, a loss as a sum over targets, and what metrics compare.

B batch, L length, N targets.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar, Self

from torch import Tensor
from torchmetrics import MetricCollection

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.model import GAUAlphaModel
from gau_alpha.untrusted.trust import trusting

IGNORED = -100
"""The label of what is no target: padding, later pieces of a word, a row without a label."""

LAYOUT = ("input_ids", "attention_mask", "position_ids", "token_type_ids")
"""What of a batch goes into every model."""


@dataclass(frozen=True)
class Outcome:
    """What a model makes of a batch with labels.

    Attributes:
        nll: () summed loss in nats, attached to the graph also where there is no target.
        count: () int64 number of targets.
        predicted: (N, …) what was predicted at the targets.
        targets: (N, …) what was right.
    """

    nll: Tensor
    count: Tensor
    predicted: Tensor
    targets: Tensor


class HeadedModel(GAUAlphaModel, ABC):
    """GAU-α with a head. Tensors of the head bear the names that Hugging Face models have for them.

    A subclass takes these arguments first; its own, with defaults, follow, are named in ``own_arguments`` and kept in
    attributes of the same names: that is how a head is written into configs and checkpoints. ``has_labels`` says
    whether there are labels to choose from.

    Args:
        config: Sizes and rates.
        method: The attention method; default: dot product, no scaling, RoPE, everything visible.
        kernel: How attention is computed: ``auto``, ``blocked`` or ``reference``.
        labels: What there is to choose from, in the order of the head's outputs.

    Raises:
        ValueError: If ``labels`` is no list of names, or there is no such kernel.
    """

    own_arguments: ClassVar[tuple[str, ...]] = ()
    has_labels: ClassVar[bool] = True

    def __init__(
        self,
        config: GAUAlphaConfig,
        method: AttentionMethod | None = None,
        kernel: str = "auto",
        labels: Sequence[str] = (),
    ) -> None:
        if isinstance(labels, str) or not isinstance(labels, Sequence) or not all(isinstance(x, str) for x in labels):
            raise ValueError(f"labels must be a list of names, got {labels!r}.")
        if not isinstance(kernel, str):
            raise ValueError(f"kernel must be a name, got {kernel!r}.")
        super().__init__(config, method, kernel)
        self.labels = tuple(labels)
        self.gau_alpha.apply(self._init_weights)

    @abstractmethod
    def evaluate(self, batch: Mapping[str, Tensor]) -> Outcome:
        """Compare with labels, all in one pass.

        Args:
            batch: ``forward``'s arguments, and ``labels``.

        Returns:
            Loss, number of targets (), and what was predicted and right (N, …).
        """

    @abstractmethod
    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Decide without labels: columns (B, …) by name."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Build metrics that compare ``Outcome.predicted`` with ``Outcome.targets`` and keep sums and counts."""

    def describe_head(self) -> dict[str, Any]:
        """Say in plain data which head this is: ``{"class_path": …, "init_args": {…}}``, without the shared part."""
        cls = type(self)
        arguments = {name: getattr(self, name) for name in self.own_arguments}
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}

    @classmethod
    def from_pretrained(
        cls,
        folder: str | PathLike[str],
        method: AttentionMethod | None = None,
        num_hidden_layers: int | None = None,
        labels: Sequence[str] | None = None,
        trust: Sequence[str] = (),
        **own_arguments: Any,
    ) -> Self:
        """Load a Hugging Face folder, of this head or of the encoder alone.

        Where the folder has no weights for the head, the head starts as new, drawn at random: a warning names it.

        Args:
            folder: The folder.
            method: The attention method; default: the one that ``config.json`` names.
            num_hidden_layers: Take the first so many layers of a deeper model, and read no others. Default: all.
            labels: What there is to choose from; default: what ``config.json`` says.
            trust: Classes of your own that ``config.json`` may name, such as ``my_scaling.PowerLaw``; it can name no
                other that is not ours.
            **own_arguments: The head's own; default: what ``config.json`` says, where it says it.

        Returns:
            The model, in evaluation mode.

        Raises:
            ValueError: If a file is missing or damaged, ``config.json`` has unknown or contradictory fields, the
                weights do not fit it, or the labels are others than the head was trained for.
        """
        from gau_alpha.finetuning.loading import load_headed  # the model itself knows nothing of files

        with trusting(trust):
            return load_headed(cls, folder, method, num_hidden_layers, labels, own_arguments)

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, in Hugging Face layout."""
        from gau_alpha.checkpoints import save_folder

        save_folder(self, folder, self.describe_head(), self.labels)


def layout(batch: Mapping[str, Tensor], *more: str) -> dict[str, Tensor]:
    """Take out of a batch what goes into the model: ``LAYOUT``, and ``more`` that a head wants besides.

    Args:
        batch: Tensors by name, (B, …) each.
        *more: Further names.
    """
    return {name: batch[name] for name in (*LAYOUT, *more) if name in batch}


def check_labels(labels: Sequence[str], least: int = 2) -> None:
    """Check that there is something to choose from.

    Raises:
        ValueError: If there are fewer than ``least`` labels, or one stands there twice.
    """
    if len(labels) < least or len(set(labels)) < len(labels):
        raise ValueError(f"labels must name {least} or more different things to choose from, got {list(labels)}.")
