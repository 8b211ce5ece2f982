"""Every strategy of every axis, each with the slow loop that says what it should compute.

A strategy that is missing here fails ``test_every_strategy_has_a_slow_reference``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import slow_attention as slow

from gau_alpha import normalizer, position, scaling, visibility
from gau_alpha.attention.method import AttentionMethod
from gau_alpha.position import RoPE
from gau_alpha.scaling import InfoScale, LogLength, NoScaling
from gau_alpha.similarity import CosScale, DotProduct, LearnedCosScale, UnscaledDotProduct
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
    sees: Callable = slow.everything
    count: str = "visible"
    normalize: Callable = slow.softmax


def positioned(strategy, score, **others) -> Case:
    return Case(AttentionMethod(position=strategy), score=score, **others)


def scaled(strategy, temperature) -> Case:
    return Case(AttentionMethod(scaling=strategy), temperature=temperature)


T = TRAIN_LENGTH
TAU = slow.info_scale(T, KEY_SIZE)
SSMAX = scaling.ScalableSoftmax(bias=True, train_length=T)

CASES = {
    "softmax": Case(AttentionMethod(DotProduct(), NoScaling(), RoPE(), Full())),
    "slow rotation": positioned(RoPE(base=100.0), slow.rope_score(100.0)),
    "cosscale": Case(AttentionMethod(CosScale(8.0)), prepare=slow.cos_scale(8.0)),
    "learned_cosscale": Case(AttentionMethod(LearnedCosScale(5.0)), prepare=slow.cos_scale(5.0)),
    "softmax_plus": scaled(LogLength(512), slow.log_length(512)),
    "logn": scaled(LogLength(T, minimum=1), slow.log_length(T, 1)),
    "infoscale": scaled(InfoScale(T), TAU),
    "infoscale with a minimum": scaled(InfoScale(T, minimum=0.9), lambda n: max(0.9, TAU(n))),
    "yarn temperature": scaled(scaling.YaRNTemperature(T), slow.yarn_temperature(T)),
    "ssmax": scaled(SSMAX, lambda n: math.log(n) / math.log(T)),
    "llama4": scaled(scaling.Llama4Temperature(0.3, T + 1), slow.llama4(0.3, T + 1)),
    "constant": scaled(scaling.ConstantTemperature(1.3), lambda n: 1.3),
    "log_temperature": scaled(scaling.LogTemperature(0.4, T), lambda n: 1 + 0.4 * math.log(max(1, n / T))),
    "product": scaled(
        scaling.Product([scaling.YaRNTemperature(T), InfoScale(T)]), lambda n: slow.yarn_temperature(T)(n) * TAU(n)
    ),
    "calibrated": scaled(
        scaling.CalibratedScale([6, 12, 20], [[0.9, 1.5, 1.2]]), slow.table([6, 12, 20], [0.9, 1.5, 1.2])
    ),
    "random keys": scaled(scaling.RandomKeysScale([0.9], T), slow.random_keys(0.9, T, KEY_SIZE)),
    "pi": positioned(position.PositionInterpolation(T), slow.interpolated(T)),
    "ntk": positioned(position.NTKAware(T), slow.rope_score(stretch=lambda document: slow.factor(document, T))),
    "dynamic_ntk": positioned(
        position.DynamicNTK(T, alpha=3.0), slow.rope_score(stretch=lambda document: 3 * slow.factor(document, T) - 2)
    ),
    "yarn": Case(
        AttentionMethod(scaling=scaling.YaRNTemperature(T), position=position.YaRN(T, beta_fast=2.0, beta_slow=0.1)),
        score=slow.yarn(T, 2.0, 0.1),
        temperature=slow.yarn_temperature(T),
    ),
    "rerope": positioned(position.ReRoPE(4, T), slow.leaky_rerope(4, T)),
    "leaky_rerope": positioned(position.LeakyReRoPE(3, 4.0, T), slow.leaky_rerope(3, T, 4.0)),
    "self_extend": positioned(position.SelfExtend(4, 3, T), slow.self_extend(4, 3, T)),
    "partial_rope": positioned(position.PartialRoPE(0.5), slow.partial_rope(0.5)),
    "stretched": positioned(
        position.StretchedPositions(2.5), slow.rope_score(distance=lambda i, j, document: 2.5 * (i - j))
    ),
    "scale_invariant": positioned(position.ScaleInvariant(3.0, 0.5), slow.scale_invariant(3.0, 0.5)),
    "scale_invariant infoscale cosscale, windowed": Case(
        AttentionMethod(CosScale(4.0), InfoScale(T), position.ScaleInvariant(), Window(4)),
        prepare=slow.cos_scale(4.0),
        score=slow.scale_invariant(10.0, 0.75),
        temperature=TAU,
        sees=slow.window(4),
    ),
    "rerope_infoscale cosscale": Case(
        AttentionMethod(CosScale(4.0), InfoScale(T), position.ReRoPE(4, T)),
        prepare=slow.cos_scale(4.0),
        score=slow.leaky_rerope(4, T),
        temperature=TAU,
    ),
    "alibi": positioned(position.ALiBi(0.3), slow.biased(lambda d: -0.3 * d)),
    "alibi_infoscale": Case(
        AttentionMethod(scaling=InfoScale(T), position=position.ALiBi(0.3)),
        score=slow.biased(lambda d: -0.3 * d),
        temperature=TAU,
    ),
    "kerple": positioned(position.KerpleLog(0.7, 2.0), slow.biased(lambda d: -0.7 * math.log(1 + 2.0 * d))),
    "sandwich": positioned(position.Sandwich(), slow.sandwich()),
    "nope": positioned(position.NoPosition(), slow.biased(lambda d: 0.0)),
    "pose": positioned(position.PoSE(64), slow.rope_score()),
    "randomized": positioned(position.RandomizedPositions(64), slow.rope_score()),
    "sink_softmax": Case(AttentionMethod(normalizer=normalizer.SinkSoftmax(0.7)), normalize=slow.sink_softmax(0.7)),
    "softmax_off_by_one infoscale": Case(
        AttentionMethod(scaling=InfoScale(T), normalizer=normalizer.SinkSoftmax(0.0, learned=False)),
        temperature=TAU,
        normalize=slow.sink_softmax(0.0),
    ),
    "entmax15": Case(AttentionMethod(normalizer=normalizer.Entmax15()), normalize=slow.entmax15),
    "entmax15 cosscale infoscale, windowed": Case(
        AttentionMethod(CosScale(6.0), InfoScale(T), visibility=Window(3), normalizer=normalizer.Entmax15()),
        prepare=slow.cos_scale(6.0),
        temperature=TAU,
        sees=slow.window(3),
        normalize=slow.entmax15,
    ),
    "relu_squared": Case(
        AttentionMethod(UnscaledDotProduct(), normalizer=normalizer.ReLUSquared()),
        prepare=lambda q, k: (q, k),
        normalize=slow.relu_squared,
    ),
    "relu_squared alibi": Case(
        AttentionMethod(position=position.ALiBi(0.3), normalizer=normalizer.ReLUSquared()),
        score=slow.biased(lambda d: -0.3 * d),
        normalize=slow.relu_squared,
    ),
    "sink_softmax with streaming_llm": Case(
        AttentionMethod(
            visibility=visibility.AttentionSinks(3, 2, T), normalizer=normalizer.SinkSoftmax(-0.4, learned=False)
        ),
        score=slow.rope_score(distance=slow.sinks_distance(3, 2, T)),
        sees=slow.window_and_sinks(3, 2, T),
        normalize=slow.sink_softmax(-0.4),
    ),
    "windowed": Case(AttentionMethod(visibility=Window(3)), sees=slow.window(3)),
    "windowed cosscale infoscale": Case(
        AttentionMethod(CosScale(4.0), InfoScale(T), RoPE(), Window(2)),
        prepare=slow.cos_scale(4.0),
        temperature=TAU,
        sees=slow.window(2),
    ),
    "windowed infoscale by length": Case(
        AttentionMethod(scaling=InfoScale(T, count="length"), visibility=Window(2)),
        temperature=TAU,
        sees=slow.window(2),
        count="length",
    ),
    "streaming_llm, a product by length": Case(
        AttentionMethod(
            scaling=scaling.Product([LogLength(T, count="length"), scaling.YaRNTemperature(T, count="length")]),
            visibility=visibility.AttentionSinks(2, 1, T),
        ),
        score=slow.rope_score(distance=slow.sinks_distance(2, 1, T)),
        temperature=lambda n: slow.log_length(T)(n) * slow.yarn_temperature(T)(n),
        sees=slow.window_and_sinks(2, 1, T),
        count="length",
    ),
    "windowed alibi": Case(
        AttentionMethod(position=position.ALiBi(0.3), visibility=Window(3)),
        score=slow.biased(lambda d: -0.3 * d),
        sees=slow.window(3),
    ),
    "streaming_llm": Case(
        AttentionMethod(visibility=visibility.AttentionSinks(3, 2, T)),
        score=slow.rope_score(distance=slow.sinks_distance(3, 2, T)),
        sees=slow.window_and_sinks(3, 2, T),
    ),
    "lm_infinite": Case(
        AttentionMethod(visibility=visibility.LMInfinite(3, 2, T)),
        score=slow.rope_score(distance=slow.ceiling_distance(3, T)),
        sees=slow.window_and_sinks(3, 2, T),
    ),
    "streaming_llm with many sinks": Case(
        AttentionMethod(visibility=visibility.AttentionSinks(1, 5, T)),
        score=slow.rope_score(distance=slow.sinks_distance(1, 5, T)),
        sees=slow.window_and_sinks(1, 5, T),
    ),
    "lm_infinite with many sinks": Case(
        AttentionMethod(visibility=visibility.LMInfinite(1, 5, T)),
        score=slow.rope_score(distance=slow.ceiling_distance(1, T)),
        sees=slow.window_and_sinks(1, 5, T),
    ),
    "lm_infinite pi": Case(
        AttentionMethod(position=position.PositionInterpolation(T), visibility=visibility.LMInfinite(3, 2, T)),
        score=slow.rope_score(
            distance=lambda i, j, document: slow.ceiling_distance(3, T)(i, j, document) / slow.factor(document, T)
        ),
        sees=slow.window_and_sinks(3, 2, T),
    ),
}
