"""The temperature of the scores as a function of the number of visible keys: the axis ``scaling``.

To add one: subclass ``Scaling`` and implement ``temperature``. ``tests/gau_alpha/attention/test_strategies.py`` finds
the class by itself.
"""

from gau_alpha.scaling.base import NoScaling, Product, Scaling
from gau_alpha.scaling.calibrated import CalibratedScale
from gau_alpha.scaling.formulas import (
    ConstantTemperature,
    InfoScale,
    Llama4Temperature,
    LogLength,
    LogTemperature,
    YaRNTemperature,
)
from gau_alpha.scaling.learned import ScalableSoftmax
from gau_alpha.scaling.random_keys import RandomKeysScale

__all__ = [
    "CalibratedScale",
    "ConstantTemperature",
    "InfoScale",
    "Llama4Temperature",
    "LogLength",
    "LogTemperature",
    "NoScaling",
    "Product",
    "RandomKeysScale",
    "ScalableSoftmax",
    "Scaling",
    "YaRNTemperature",
]
