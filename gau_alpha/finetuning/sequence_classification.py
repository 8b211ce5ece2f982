"""A label per text, or per pair of texts.

B batch, L length, H hidden size, C labels.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torchmetrics import MetricCollection

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.finetuning.base import HeadedModel, Outcome, check_labels, layout
from gau_alpha.finetuning.choosing import choice_columns, choice_metrics, choice_outcome
from gau_alpha.training.pooling import pooling_of
from gau_alpha.untrusted.limits import require_number


class GAUAlphaForSequenceClassification(HeadedModel):
    """A linear map of one vector per text: ``classifier.weight`` (C, H) and ``classifier.bias`` (C,).

    Args:
        config: Sizes and rates.
        method: The attention method; default: dot product, no scaling, RoPE, everything visible.
        kernel: How attention is computed: ``auto``, ``blocked`` or ``reference``.
        labels: What there is to choose from, in the order of the head's outputs.
        pooling: Which vector: that of the ``first`` token, or the ``mean`` of all real ones.
        classifier_dropout: Dropout on that vector.

    Raises:
        ValueError: If there are fewer than two labels, no such pooling, or ``classifier_dropout`` is outside [0, 1].
    """

    own_arguments = ("pooling", "classifier_dropout")

    def __init__(
        self,
        config: GAUAlphaConfig,
        method: AttentionMethod | None = None,
        kernel: str = "auto",
        labels: Sequence[str] = (),
        pooling: str = "first",
        classifier_dropout: float = 0.1,
    ) -> None:
        super().__init__(config, method, kernel, labels)
        check_labels(labels)
        self.pooling = pooling
        require_number("classifier_dropout", classifier_dropout, least=0, most=1)
        self.classifier_dropout = classifier_dropout
        self._pool = pooling_of(pooling)
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
        """Classify texts.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), nonzero on real tokens, which stand before all padding. None: all are real.
            position_ids: (B, L) int64. None: counted from 0.
            token_type_ids: (B, L) int64, which text of a pair. None: all are 0.

        Returns:
            Logits (B, C).
        """
        x = self.encode(input_ids, attention_mask, position_ids, token_type_ids=token_type_ids)  # (B, L, H)
        return self.classifier(self.dropout(self._pool(x, attention_mask)))

    def evaluate(self, batch: Mapping[str, Tensor]) -> Outcome:
        """Compare with ``labels`` (B,)."""
        return choice_outcome(self(**layout(batch)), batch["labels"])

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``label`` and ``probability``, (B,) each."""
        return choice_columns(self(**layout(batch)))

    def metrics(self) -> MetricCollection:
        """Build ``accuracy`` and macro ``f1`` over texts."""
        return choice_metrics(len(self.labels))
