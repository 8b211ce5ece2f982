"""What attention knows of a batch's rows besides their tokens: padding, documents, positions.

B batch (1 where all rows agree), L length.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SequenceLayout:
    """The layout of a batch of rows.

    A row holds one document, or several side by side (a packed row). Documents are runs of equal segment ids: an id
    that comes back later in the row starts another document.

    Attributes:
        position_ids: (B|1, L) int64, what rotations and biases see.
        real: (B, L) bool, False on padding; None if every token is real.
        segments: (B, L) int64, equal within a document; None if each row is one document.
        document_start: (B|1, L) int64, index of the first token of each token's document.
        document_stop: (B|1, L) int64, index behind its last token.
        consecutive: Whether within a document positions count 0, 1, 2, …, so that differences of positions are
            differences of indices.
    """

    position_ids: Tensor
    real: Tensor | None
    segments: Tensor | None
    document_start: Tensor
    document_stop: Tensor
    consecutive: bool

    @classmethod
    def of(
        cls,
        length: int,
        device: torch.device,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
    ) -> "SequenceLayout":
        """Lay out rows as the arguments of a model's forward pass describe them.

        Args:
            length: Tokens per row, padding included.
            device: Where the tokens are.
            attention_mask: (B, L), nonzero on real tokens. None: all are real.
            position_ids: (B, L) integers. None: counted from 0 within each document.
            segment_ids: (B, L) integers, equal within a document. None: each row is one document.

        Raises:
            ValueError: If an argument is not of shape (B, L).
        """
        for name, given in (
            ("attention_mask", attention_mask),
            ("position_ids", position_ids),
            ("segment_ids", segment_ids),
        ):
            if given is not None and (given.ndim != 2 or given.shape[1] != length):
                raise ValueError(f"{name} must have shape (batch, {length}), got {tuple(given.shape)}.")
        index = torch.arange(length, device=device)[None]  # (1, L)
        if segment_ids is None:
            start, stop = torch.zeros_like(index), torch.full_like(index, length)
            segments = None
        else:
            first = torch.ones_like(segment_ids, dtype=torch.bool)
            first[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
            segments = first.cumsum(1)  # (B, L), 1, 2, … along the row
            start = torch.where(first, index, 0).cummax(1).values
            # Read from the right, the first index seen of each later document is where this one stops.
            later = torch.where(first, index, length).roll(-1, dims=1)
            later[:, -1:] = length
            stop = later.flip(1).cummin(1).values.flip(1)
        return cls(
            position_ids=index - start if position_ids is None else position_ids,
            real=None if attention_mask is None else attention_mask.bool(),
            segments=segments,
            document_start=start,
            document_stop=stop,
            consecutive=position_ids is None,
        )

    @property
    def length(self) -> int:
        """Tokens per row, padding included."""
        return self.position_ids.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.position_ids.device

    def count_real(self, start: Tensor, stop: Tensor) -> Tensor:
        """Count the real tokens of a stretch for each token.

        Args:
            start: (B|1, L) int64, index of the stretch's first token.
            stop: (B|1, L) int64, index behind its last token.

        Returns:
            (B|1, L) int64.
        """
        if self.real is None:
            return stop - start
        before = torch.nn.functional.pad(self.real.cumsum(1), (1, 0))  # (B, L + 1), real tokens before each index
        batch = (before.shape[0], self.length)
        return before.gather(1, stop.expand(batch)) - before.gather(1, start.expand(batch))

    @property
    def document_length(self) -> Tensor:
        """(B|1, L) int64: real tokens in each token's document."""
        return self.count_real(self.document_start, self.document_stop)

    @property
    def offset(self) -> Tensor:
        """(B|1, L) int64: real tokens before each token in its document."""
        index = torch.arange(self.length, device=self.device)[None]  # (1, L)
        return self.count_real(self.document_start, index)


def look_up(x: Tensor, index: Tensor) -> Tensor:
    """Read entries of each row.

    Args:
        x: (B|1, L).
        index: (B|1, …) int64, places in the rows.

    Returns:
        (B|1, …).
    """
    if len(x) == 1:
        return x[0][index]
    row = torch.arange(len(x), device=x.device).view(-1, *[1] * (index.ndim - 1))  # (B, 1, …)
    return x[row, index]


def take(x: Tensor, positions: Tensor) -> Tensor:
    """Take vectors of each row.

    Args:
        x: (B, L, H).
        positions: (B, T) int64, places in the rows.

    Returns:
        (B, T, H).
    """
    return x.gather(1, positions[:, :, None].expand(-1, -1, x.shape[-1]))
