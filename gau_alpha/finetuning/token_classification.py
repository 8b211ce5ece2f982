"""A label per token.

B batch, L length, H hidden size, C labels.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.finetuning.base import IGNORED, HeadedModel, Outcome, check_labels, layout
from gau_alpha.finetuning.choosing import choice_metrics, choice_outcome
from gau_alpha.untrusted.limits import require_number


class GAUAlphaForTokenClassification(HeadedModel):
    """A linear map of each token's vector: ``classifier.weight`` (C, H) and ``classifier.bias`` (C,).

    Args:
        config: Sizes and rates.
        method: The attention method; default: dot product, no scaling, RoPE, everything visible.
        kernel: How attention is computed: ``auto``, ``blocked`` or ``reference``.
        labels: What there is to choose from, in the order of the head's outputs.
        classifier_dropout: Dropout on the vectors.

    Raises:
        ValueError: If there are fewer than two labels, or ``classifier_dropout`` is outside [0, 1].
    """

    own_arguments = ("classifier_dropout",)

    def __init__(
        self,
        config: GAUAlphaConfig,
        method: AttentionMethod | None = None,
        kernel: str = "auto",
        labels: Sequence[str] = (),
        classifier_dropout: float = 0.1,
    ) -> None:
        super().__init__(config, method, kernel, labels)
        check_labels(labels)
        require_number("classifier_dropout", classifier_dropout, least=0, most=1)
        self.classifier_dropout = classifier_dropout
        self.dropout = nn.Dropout(classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, len(labels))
        self._init_weights(self.classifier)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Classify tokens.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), nonzero on real tokens, which stand before all padding. None: all are real.
            position_ids: (B, L) int64. None: counted from 0.
            token_type_ids: (B, L) int64, which text of a pair. None: all are 0.

        Returns:
            Logits (B, L, C).
        """
        x = self.encode(input_ids, attention_mask, position_ids, token_type_ids=token_type_ids)  # (B, L, H)
        return self.classifier(self.dropout(x))

    def evaluate(self, batch: Mapping[str, Tensor]) -> Outcome:
        """Compare with ``labels`` (B, L), −100 on tokens that are no target, such as the later pieces of a word."""
        return choice_outcome(self(**layout(batch)).flatten(0, 1), batch["labels"].flatten())

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``label`` (B, L) int64; −100 where no word begins, as ``word_starts`` (B, L) says, or on padding."""
        label = self(**layout(batch)).argmax(-1)  # (B, L)
        wanted = batch.get("word_starts", batch.get("attention_mask"))
        return {"label": label if wanted is None else torch.where(wanted != 0, label, IGNORED)}

    def metrics(self) -> MetricCollection:
        """Build ``accuracy`` and macro ``f1`` over labelled tokens, not over entities."""
        return choice_metrics(len(self.labels))
