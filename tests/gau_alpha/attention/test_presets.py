"""Presets: every shipped file builds, and applies to a trained method as it should."""

import pytest

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.attention.presets import TRAINED, build_strategies, load_preset, preset_names, resolve_method
from gau_alpha.normalizer import Entmax15, ReLUSquared, SinkSoftmax, Softmax
from gau_alpha.position import ALiBi, RoPE
from gau_alpha.scaling import InfoScale, LogLength, NoScaling
from gau_alpha.similarity import CosScale, DotProduct
from gau_alpha.visibility import Full, Window

BASELINES = ["pi", "pose", "yarn", "alibi", "streaming_llm", "lm_infinite", "rerope", "windowed"]
EXPECTED = {
    *("softmax", "softmax_plus", "infoscale", "cosscale", "cosscale_infoscale"),
    *BASELINES,
    *(f"{name}_infoscale" for name in BASELINES),
    *("ntk", "dynamic_ntk", "leaky_rerope", "ssmax", "logn", "llama4", "kerple", "sandwich", "randomized", "nope"),
}


def test_the_promised_presets_are_there():
    assert set(preset_names()) >= EXPECTED


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_applies(name):
    base = AttentionMethod(CosScale(8.0)).with_train_length(64)
    method = resolve_method(name, base, 64)
    for axis, strategy in load_preset(name).items():
        assert type(getattr(method, axis)) is type(strategy)
    for axis, strategy in method.axes():
        if axis not in load_preset(name):
            assert strategy is getattr(base, axis)
        assert getattr(strategy, "train_length", 64) == 64


def test_what_presets_choose():
    chosen = {name: load_preset(name) for name in EXPECTED}
    assert [type(s) for s in chosen["softmax"].values()] == [DotProduct, NoScaling, RoPE, Full, Softmax]
    assert chosen["softmax_plus"]["scaling"].describe()["init_args"] == {
        "base": 512.0,
        "minimum": 0.0,
        "count": "visible",
    }
    assert isinstance(chosen["cosscale_infoscale"]["scaling"], InfoScale)
    assert isinstance(chosen["windowed"]["visibility"], Window)


def test_trained_is_the_models_own_method():
    base = AttentionMethod(scaling=LogLength())
    assert resolve_method(TRAINED, base, 64) is base


def test_training_free_presets_leave_the_normalizer_as_trained():
    base = AttentionMethod(normalizer=Entmax15())
    for name in preset_names():
        strategies = load_preset(name)
        if all(one.training_free for one in strategies.values()) and name != "softmax":
            assert resolve_method(name, base, 64).normalizer is base.normalizer, name
    assert isinstance(resolve_method("softmax", base, 64).normalizer, Softmax)


def test_a_trained_normalizer_keeps_its_settings():
    for trained in (SinkSoftmax(-2.0), SinkSoftmax(-2.0, learned=False)):
        assert resolve_method("sink_softmax", AttentionMethod(normalizer=trained), 64).normalizer is trained


def test_a_trained_similarity_keeps_its_scale():
    base = AttentionMethod(CosScale(5.0))
    assert resolve_method("cosscale_infoscale", base, 64).similarity is base.similarity
    assert resolve_method("cosscale", AttentionMethod(), 64).similarity.scale == 16


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"scalin": "gau_alpha.scaling.InfoScale"}, "unknown axis 'scalin'; the axes are similarity"),
        ({"scaling": "gau_alpha.scaling.InfoScal"}, "InfoScale, Llama4Temperature, LogLength"),
        ({"scaling": "gau_alpha.similarity.CosScale"}, "InfoScale, Llama4Temperature, LogLength"),
        ({"scaling": {"class_path": "gau_alpha.scaling.InfoScale", "init_args": {"length": 3}}}, "'length'"),
    ],
)
def test_what_is_no_method_is_explained(description, message):
    with pytest.raises(ValueError, match=message):
        build_strategies(description)


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(ValueError, match=r"Unknown method 'infoscal'; choose from: trained, .*cosscale_infoscale"):
        load_preset("infoscal")


@pytest.mark.parametrize(
    ("preset", "trained", "concern"),
    [
        ("infoscale", AttentionMethod(), None),
        ("rerope_infoscale", AttentionMethod(), None),
        ("yarn", AttentionMethod(CosScale(8.0)), None),
        ("cosscale", AttentionMethod(CosScale(8.0)), None),
        ("cosscale", AttentionMethod(), "similarity overridden"),
        ("kerple", AttentionMethod(), "KerpleLog has to be trained, and was not"),
        ("ssmax", AttentionMethod(), "ScalableSoftmax has to be trained, and was not"),
        ("pi", AttentionMethod(position=ALiBi()), "trained without rotations"),
        ("alibi", AttentionMethod(position=ALiBi()), None),
        ("entmax15", AttentionMethod(), "normalizer overridden"),
        ("entmax15", AttentionMethod(normalizer=Entmax15()), None),
        ("softmax", AttentionMethod(normalizer=ReLUSquared()), "normalizer overridden"),
        ("infoscale", AttentionMethod(normalizer=ReLUSquared()), None),
        ("sink_softmax_infoscale", AttentionMethod(normalizer=SinkSoftmax(-2.0)), None),
    ],
)
def test_compatibility_warnings(preset, trained, concern):
    concerns = resolve_method(preset, trained.with_train_length(64), 64).compatibility_warnings(
        trained.with_train_length(64)
    )
    assert concerns == [] if concern is None else concern in concerns[0]
    assert len(concerns) <= 1
