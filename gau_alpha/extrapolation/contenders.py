"""What takes part in a comparison: a method on a model."""

from dataclasses import dataclass

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.model import GAUAlphaForMaskedLM


@dataclass(frozen=True)
class Contender:
    """One line of a table.

    Attributes:
        name: As the table names it; no other contender has it.
        model: The model, on its device.
        method: What the model is measured under.
        group: Shared by contenders that differ in nothing but the seed of their training. Empty for a loner.
        trained_method: What the model was trained under; None if that is the method it has.
        note: What a reader should know before quoting its rows.
    """

    name: str
    model: GAUAlphaForMaskedLM
    method: AttentionMethod
    group: str = ""
    trained_method: AttentionMethod | None = None
    note: str = ""

    @property
    def reservations(self) -> list[str]:
        """What speaks against the method on weights that were trained under another."""
        return self.method.reservations(self.trained_method or self.model.method)
