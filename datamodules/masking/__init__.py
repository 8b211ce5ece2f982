"""Which tokens are hidden, and behind what.

A new rule is a subclass of ``Masking``, or of ``RateMasking`` or ``GroupMasking`` if it has a rate.
``tests/datamodules/test_group_masking.py`` has the list of classes that every general test runs over.
"""

from datamodules.masking.base import IGNORED, Masking, RateMasking
from datamodules.masking.groups import GroupMasking
from datamodules.masking.schedules import CosineRate, LinearRate, RateSchedule, StepwiseRate
from datamodules.masking.segmenters import Jieba, Segmenter, WordList
from datamodules.masking.spans import SpanMasking
from datamodules.masking.token import TokenMasking
from datamodules.masking.whole_words import WholeWordMasking

__all__ = [
    "IGNORED",
    "CosineRate",
    "GroupMasking",
    "Jieba",
    "LinearRate",
    "Masking",
    "RateMasking",
    "RateSchedule",
    "Segmenter",
    "SpanMasking",
    "StepwiseRate",
    "TokenMasking",
    "WholeWordMasking",
    "WordList",
]
