"""Every strategy of every axis, each with the slow loop that says what it should compute.

A strategy that is missing here fails ``test_every_strategy_has_a_slow_reference``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import slow_attention as slow

from gau_alpha.calibration import CalibratedScale
from gau_alpha.method import AttentionMethod
from gau_alpha.position import RoPE
from gau_alpha.scaling import InfoScale, LogLength, NoScaling
from gau_alpha.similarity import CosScale, DotProduct
from gau_alpha.visibility import Full, Window

KEY_SIZE = 8
TRAIN_LENGTH = 6


@dataclass(frozen=True)
class Case:
    """A method and its slow counterpart: the arguments of ``slow_attention.attention``."""

    method: AttentionMethod
    prepare: Callable = slow.dot_product
    score: Callable = field(default_factory=slow.rope_score)
    temperature: Callable = lambda n: 1.0
    sees: Callable = lambda i, j: True


CASES = {
    "softmax": Case(AttentionMethod(DotProduct(), NoScaling(), RoPE(), Full())),
    "slow rotation": Case(AttentionMethod(position=RoPE(base=100.0)), score=slow.rope_score(100.0)),
    "cosscale": Case(AttentionMethod(CosScale(8.0)), prepare=slow.cos_scale(8.0)),
    "softmax_plus": Case(AttentionMethod(scaling=LogLength(512)), temperature=slow.log_length(512)),
    "logn": Case(AttentionMethod(scaling=LogLength(6, minimum=1)), temperature=slow.log_length(6, 1)),
    "infoscale": Case(
        AttentionMethod(scaling=InfoScale(TRAIN_LENGTH)), temperature=slow.info_scale(TRAIN_LENGTH, KEY_SIZE)
    ),
    "infoscale with a minimum": Case(
        AttentionMethod(scaling=InfoScale(TRAIN_LENGTH, minimum=0.9)),
        temperature=lambda n: max(0.9, slow.info_scale(TRAIN_LENGTH, KEY_SIZE)(n)),
    ),
    "calibrated": Case(
        AttentionMethod(scaling=CalibratedScale([6, 12, 20], [[0.9, 1.5, 1.2]])),
        temperature=slow.table([6, 12, 20], [0.9, 1.5, 1.2]),
    ),
    "windowed": Case(AttentionMethod(visibility=Window(3)), sees=lambda i, j: abs(i - j) <= 3),
    "windowed cosscale infoscale": Case(
        AttentionMethod(CosScale(4.0), InfoScale(TRAIN_LENGTH), RoPE(), Window(2)),
        prepare=slow.cos_scale(4.0),
        temperature=slow.info_scale(TRAIN_LENGTH, KEY_SIZE),
        sees=lambda i, j: abs(i - j) <= 2,
    ),
}
