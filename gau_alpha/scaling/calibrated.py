"""A temperature that was measured instead of derived: the strategy ``CalibratedScale`` of the axis ``scaling``.

``gau_alpha/extrapolation/calibrate.py`` measures it. Dimensions: K layers, M lengths.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from gau_alpha.scaling.base import Scaling
from gau_alpha.untrusted.limits import require_number, require_whole


class CalibratedScale(Scaling):
    """τ(n) from a table, per layer: the temperature at which attention entropy is what it was at the training length.

    ``RandomKeysScale`` derives such a temperature for random keys; this one is measured on text. Between the
    lengths of the table τ is linear in ln n; below the first it stays as it is there, which is how the model was
    trained; beyond the last it goes on as between the last two. n is the number of visible keys, which is what was
    measured; there is no other ``count``.

    Left without a table it computes nothing: ``gau-alpha calibrate`` makes one, and ``gau-alpha extrapolate --methods
    calibrated`` fills it in.

    Args:
        lengths: (M,) numbers of visible keys, ascending.
        temperatures: (K, M) τ for every layer at these lengths, or one row that serves all layers.

    Raises:
        ValueError: If one argument comes without the other, shapes don't fit, lengths don't ascend or a temperature is
            not positive.
    """

    def __init__(self, lengths: list[int] | None = None, temperatures: list[list[float]] | None = None) -> None:
        super().__init__()
        if (lengths is None) != (temperatures is None):
            raise ValueError("lengths and temperatures belong together: give both or neither.")
        self.lengths = lengths
        self.temperatures = temperatures
        self._layer: int | None = None
        if lengths is None or temperatures is None:
            return
        if not isinstance(lengths, Sequence) or not isinstance(temperatures, Sequence):
            raise ValueError("lengths must be a list of whole numbers, and temperatures a list of numbers per layer.")
        for length in lengths:
            require_whole("Each of lengths", length)
        if not lengths or any(a >= b for a, b in pairwise(lengths)):
            raise ValueError(f"lengths={lengths} must be one or more positive whole numbers that ascend.")
        if not temperatures or any(not isinstance(row, Sequence) or len(row) != len(lengths) for row in temperatures):
            raise ValueError(f"temperatures must have {len(lengths)} numbers, one per length, for every layer.")
        for tau in (tau for row in temperatures for tau in row):
            require_number("Each of temperatures", tau, above=0)

    def for_layer(self, layer: int, num_layers: int) -> Self:
        """Return the strategy with the row of one layer.

        Raises:
            ValueError: If the table was made for another number of layers.
        """
        if self.temperatures is None or len(self.temperatures) == 1:
            return self
        if len(self.temperatures) != num_layers:
            raise ValueError(
                f"CalibratedScale has temperatures for {len(self.temperatures)} layers, the model has {num_layers}: "
                f"the table was made for another model. Make one with `gau-alpha calibrate`."
            )
        own = copy.copy(self)
        own._layer = layer
        return own

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Interpolate in ln n.

        Raises:
            ValueError: If there is no table, or it has a row per layer and nobody said which layer this is.
        """
        if self.lengths is None or self.temperatures is None:
            raise ValueError(
                "CalibratedScale has no table yet: measure one with `gau-alpha calibrate --ckpt_path …` and evaluate "
                "it with `gau-alpha extrapolate --methods calibrated`."
            )
        if self._layer is None and len(self.temperatures) > 1:
            raise ValueError("CalibratedScale has a row per layer: take the method of a layer, `for_layer`.")
        row = self.temperatures[self._layer or 0]
        tau = torch.tensor(row, dtype=torch.float64, device=num_visible_keys.device)  # (M,)
        if len(row) == 1:
            return tau.float().expand(num_visible_keys.shape)
        at = torch.tensor(self.lengths, dtype=torch.float64, device=num_visible_keys.device).log()  # (M,)
        x = num_visible_keys.clamp_min(self.lengths[0]).double().log()
        right = torch.searchsorted(at, x).clamp(1, len(row) - 1)  # index of the upper end of the piece
        share = (x - at[right - 1]) / (at[right] - at[right - 1])
        # A falling last piece must not go below zero far out, where attention would be reversed.
        return torch.lerp(tau[right - 1], tau[right], share).clamp_min(0).float()
