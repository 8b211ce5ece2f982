"""The span of a text that answers a question (Rajpurkar et al. 2016, SQuAD, arXiv 1606.05250).

B batch, L length, W longest answer, H hidden size.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.finetuning.base import IGNORED, HeadedModel, Outcome, layout
from gau_alpha.finetuning.shares import ShareRight, SpanOverlap
from gau_alpha.untrusted.limits import require_whole


class GAUAlphaForQuestionAnswering(HeadedModel):
    """Two scores per token, as first and as last of the answer: ``qa_outputs.weight`` (2, H), ``qa_outputs.bias`` (2,).

    Args:
        config: Sizes and rates.
        method: The attention method; default: dot product, no scaling, RoPE, everything visible.
        kernel: How attention is computed: ``auto``, ``blocked`` or ``reference``.
        labels: Empty: an answer is a span.
        longest_answer: Tokens W of the longest span that is predicted.

    Raises:
        ValueError: If labels are given, or ``longest_answer`` is below 1.
    """

    own_arguments = ("longest_answer",)
    has_labels = False

    def __init__(
        self,
        config: GAUAlphaConfig,
        method: AttentionMethod | None = None,
        kernel: str = "auto",
        labels: Sequence[str] = (),
        longest_answer: int = 64,
    ) -> None:
        super().__init__(config, method, kernel, labels)
        if labels:
            raise ValueError(f"An answer is a span, so there are no labels; got {list(labels)}.")
        require_whole("longest_answer", longest_answer)
        self.longest_answer = longest_answer
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self._init_weights(self.qa_outputs)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        answerable: Tensor | None = None,
    ) -> Tensor:
        """Score tokens as first and last of the answer.

        Args:
            input_ids: (B, L) int64.
            attention_mask: (B, L), nonzero on real tokens, which stand before all padding. None: all are real.
            position_ids: (B, L) int64. None: counted from 0.
            token_type_ids: (B, L) int64, which text of a pair. None: all are 0.
            answerable: (B, L), nonzero on tokens that may be part of an answer. None: all real ones.

        Returns:
            Logits (B, L, 2), −∞ where no answer can be.
        """
        x = self.encode(input_ids, attention_mask, position_ids, token_type_ids=token_type_ids)  # (B, L, H)
        logits = self.qa_outputs(x).float()  # (B, L, 2)
        allowed = attention_mask if answerable is None else answerable
        return logits if allowed is None else logits.masked_fill((allowed == 0)[:, :, None], -float("inf"))

    def evaluate(self, batch: Mapping[str, Tensor]) -> Outcome:
        """Compare with ``labels`` (B, 2), first and last token; −100 where a row has no answer.

        The loss of an answer is the mean of those of its two ends.
        """
        logits, labels = self(**layout(batch, "answerable")), batch["labels"]
        is_target = (labels != IGNORED).all(-1)  # (B,)
        ends = torch.where(is_target[:, None], labels, IGNORED).flatten()  # (B · 2,)
        nll = F.cross_entropy(logits.transpose(1, 2).flatten(0, 1), ends, ignore_index=IGNORED, reduction="sum") / 2
        return Outcome(nll, is_target.sum(), self.best_spans(logits)[is_target], labels[is_target])

    def predict(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return ``span`` (B, 2) int64, first and last token of the most likely answer.

        Where the batch says by ``offsets`` (B, L, 2) which characters a token stands for, also ``start`` and ``stop``
        (B,) int64, the answer's first character and the one behind its last.
        """
        span = self.best_spans(self(**layout(batch, "answerable")))  # (B, 2)
        if "offsets" not in batch:
            return {"span": span}
        ends = batch["offsets"].gather(1, span[:, :, None].expand(-1, -1, 2))  # (B, 2, 2)
        return {"span": span, "start": ends[:, 0, 0], "stop": ends[:, 1, 1]}

    def best_spans(self, logits: Tensor) -> Tensor:
        """Find the spans of at most W tokens with the greatest sum of both scores.

        Args:
            logits: (B, L, 2).

        Returns:
            (B, 2) int64.
        """
        length = logits.shape[1]
        width = min(self.longest_answer, length)
        start, end = logits.unbind(-1)  # (B, L)
        ends = F.pad(end, (0, width - 1), value=-float("inf")).unfold(1, width, 1)  # (B, L, W)
        best, offset = ends.max(-1)  # (B, L)
        first = (start + best).argmax(-1, keepdim=True)  # (B, 1)
        return torch.cat([first, first + offset.gather(1, first)], dim=1)

    def metrics(self) -> MetricCollection:
        """Build ``exact_match``, the share of answers with both ends right, and ``f1``, how much the spans overlap."""
        return MetricCollection({"exact_match": ShareRight(), "f1": SpanOverlap()}, compute_groups=False)
