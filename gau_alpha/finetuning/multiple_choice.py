"""One of several texts.

B batch, K choices, L length, H hidden size.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torchmetrics import MetricCollection

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.finetuning.base import HeadedModel, Outcome, layout
from gau_alpha.finetuning.choosing import choice_columns, choice_outcome
from gau_alpha.finetuning.shares import ShareRight
from gau_alpha.training.pooling import pooling_of
from gau_alpha.untrusted.limits import require_number


class GAUAlphaForMultipleChoice(HeadedModel):
    """A score for each choice, from one vector per choice: ``classifier.weight`` (1, H) and ``classifier.bias`` (1,).

    Args:
        config: Sizes and rates.
        method: The attention method; default: dot product, no scaling, RoPE, everything visible.
        kernel: How attention is computed: ``auto``, ``blocked`` or ``reference``.
        labels: Empty: choices go by number.
        pooling: Which vector: that of the ``first`` token, or the ``mean`` of all real ones.
        classifier_dropout: Dropout on that vector.

    Raises:
        ValueError: If labels are given, there is no such pooling, or ``classifier_dropout`` is outside [0, 1].
    """

    own_arguments = ("pooling", "classifier_dropout")
    has_labels = False

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
        if labels:
            raise ValueError(f"Choices go by number, so there are no labels; got {list(labels)}.")
        self.pooling = pooling
        require_number("classifier_dropout", classifier_dropout, least=0, most=1)
        self.classifier_dropout = classifier_dropout
        self._pool = pooling_of(pooling)
        self.dropout = nn.Dropout(classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self._init_weights(self.classifier)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        choice_mask: Tensor | None = None,
    ) -> Tensor:
        """Score choices.

        Args:
            input_ids: (B, K, L) int64.
            attention_mask: (B, K, L), nonzero on real tokens, which stand before all padding. None: all are real.
            position_ids: (B, L) int64, the same for all choices. None: counted from 0.
            token_type_ids: (B, K, L) int64, which text of a pair. None: all are 0.
            choice_mask: (B, K), zero on choices that only fill a batch up. None: there are none such.

        Returns:
            Logits (B, K), −∞ where there is no choice.

        Raises:
            ValueError: If ``input_ids`` is not of shape (B, K, L).
        """
        if input_ids.ndim != 3:
            raise ValueError(f"input_ids must have shape (batch, choices, length), got {tuple(input_ids.shape)}.")
        positions = None if position_ids is None else position_ids[:, None].expand_as(input_ids)  # (B, K, L)
        ids, mask, types, positions = (
            None if x is None else x.flatten(0, 1)  # (B · K, L)
            for x in (input_ids, attention_mask, token_type_ids, positions)
        )
        assert ids is not None
        x = self._pool(self.encode(ids, mask, positions, token_type_ids=types), mask)  # (B · K, H)
        logits = self.classifier(self.dropout(x)).view(input_ids.shape[:2])  # (B, K)
        return logits if choice_mask is None else logits.masked_fill(choice_mask == 0, -float("inf"))

    def evaluate(self, batch: Mapping[str, Tensor]) -> Outcome:
        """Compare with ``labels`` (B,), the numbers of the right choices."""
        return choice_outcome(self(**layout(batch, "choice_mask")), batch["labels"])

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``label``, the number of the choice, and ``probability``, (B,) each."""
        return choice_columns(self(**layout(batch, "choice_mask")))

    def metrics(self) -> MetricCollection:
        """Build ``accuracy``, the share of questions with the right choice."""
        return MetricCollection({"accuracy": ShareRight()}, compute_groups=False)
