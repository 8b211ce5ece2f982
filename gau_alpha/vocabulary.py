"""What data and evaluation must agree on about token ids."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a tokenizer, without the tokenizer.

    Attributes:
        size: Number of embedding rows V; every id is below it.
        mask_id: The id that hides a token the model has to predict.
        pad_id: The id that fills a row up to its length.
        special_ids: Ids that are no text: never chosen as targets, never drawn at random.
            ``mask_id`` and ``pad_id`` are always among them.

    Raises:
        ValueError: If an id lies outside ``[0, size)`` or no ordinary token is left.
    """

    size: int
    mask_id: int
    pad_id: int
    special_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        special = tuple(sorted({*self.special_ids, self.mask_id, self.pad_id}))
        object.__setattr__(self, "special_ids", special)
        if special[0] < 0 or special[-1] >= self.size:
            raise ValueError(f"Token ids {special} must lie in [0, {self.size}), the size of the vocabulary.")
        if len(special) >= self.size:
            raise ValueError(f"A vocabulary of {self.size} ids with {len(special)} special ones has no ordinary token.")
