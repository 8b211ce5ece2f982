"""Every argument of every exported class, given nonsense: it is refused in one ValueError, or it works."""

import inspect
import math
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch
from lightning.pytorch import Callback

import callbacks
import gau_alpha.finetuning
import gau_alpha.normalizer
import gau_alpha.position
import gau_alpha.scaling
import gau_alpha.similarity
import gau_alpha.visibility
from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.strategy import Strategy
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.finetuning import HeadedModel
from gau_alpha.finetuning.module import GAUAlphaFineTuning
from gau_alpha.normalizer import Normalizer
from gau_alpha.position import Position, RoPE, Rotary
from gau_alpha.scaling import NoScaling, Scaling
from gau_alpha.similarity import Similarity
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.training.optimizers import AdamW, Muon
from gau_alpha.training.schedules import WSD, Cosine, Linear, Schedule
from gau_alpha.visibility import Visibility

WRONG = [
    None,
    -1,
    0,
    1,
    1.5,
    1e-320,
    math.nan,
    math.inf,
    -math.inf,
    10**30,
    10**400,
    2**64,
    "x",
    "",
    [],
    [-1],
    {},
    True,
]
CONFIG = GAUAlphaConfig(12, 8, 8, 4, 2)
TRAIN_LENGTH = 8
SOUND = {
    "target_length": 16,
    "config": CONFIG,
    "train_length": TRAIN_LENGTH,
    "every_n_train_steps": 5,
    "scalings": [NoScaling()],
    "vocab_size": 12,
    "lengths": [8, 16],
    "entropy": [1.0, 1.2],
    "tau": 1.1,
    "c": 0.1,
    "factor": 2.0,
    "temperatures": [[1.0, 1.2]],
    "head": gau_alpha.finetuning.GAUAlphaForTokenClassification,
}
"""Arguments that have no default, for all classes but strategies, whose ``train_length`` is left out."""


def exported(*packages, base):
    for package in packages:
        for name in getattr(package, "__all__", vars(package)):
            one = getattr(package, name)
            if isinstance(one, type) and issubclass(one, base) and not inspect.isabstract(one):
                yield one


BASES = (Strategy, Similarity, Scaling, Position, Visibility, Normalizer, Rotary)
AXES = (gau_alpha.similarity, gau_alpha.scaling, gau_alpha.position, gau_alpha.visibility, gau_alpha.normalizer)
STRATEGIES = [cls for cls in exported(*AXES, base=Strategy) if cls not in BASES]
HEADS = list(exported(gau_alpha.finetuning, base=HeadedModel))
CALLBACKS = [
    one
    for module in iter_modules(callbacks.__path__, "callbacks.")
    for one in vars(import_module(module.name)).values()
    if isinstance(one, type) and issubclass(one, Callback) and one.__module__ == module.name
]
OTHERS = [Cosine, Linear, WSD, AdamW, Muon, GAUAlphaConfig, GAUAlphaModule, GAUAlphaFineTuning]


def arguments(cls):
    return [name for name, one in inspect.signature(cls).parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]


def sound(cls):
    parameters = inspect.signature(cls).parameters
    found = {
        name: SOUND[name]
        for name in arguments(cls)
        if parameters[name].default is inspect.Parameter.empty or name in ("lengths", "temperatures", "entropy")
    }
    if "labels" in parameters and getattr(cls, "has_labels", True):
        found["labels"] = ["a", "b"]
    return found


# What is no number: a config and a method are checked where they are used, kernels by name in the model.
OBJECTS = dict.fromkeys(HEADS, ("config", "method"))
EACH = [
    pytest.param(cls, name, id=f"{cls.__name__}-{name}")
    for cls in (*STRATEGIES, *HEADS, *CALLBACKS, *OTHERS)
    for name in arguments(cls)
    if name not in OBJECTS.get(cls, ())
]


def test_everything_is_covered():
    assert len(STRATEGIES) >= 25
    assert len(HEADS) == 4
    assert len(CALLBACKS) >= 5
    for cls in (*STRATEGIES, *HEADS, *CALLBACKS, *OTHERS):
        use(cls, cls(**sound(cls)))


@pytest.mark.parametrize(("cls", "name"), EACH)
def test_wrong_argument(cls, name):
    unexplained = {}
    for value in WRONG:
        try:
            use(cls, cls(**{**sound(cls), name: value}))
        except ValueError as error:
            if not 0 < len(str(error)) < 1000 or "\n" in str(error):
                unexplained[repr(value)[:12]] = repr(error)
        except Exception as error:  # all values are tried before one is told of
            unexplained[repr(value)[:12]] = repr(error)
    assert not unexplained


def use(cls, made):
    """What a strategy or a schedule is for, on small inputs."""
    if issubclass(cls, Schedule):
        assert all(math.isfinite(made.factor(step, 10)) for step in range(11))
    if isinstance(made, Strategy):
        use_strategy(made)


def use_strategy(made):
    bound = made.with_train_length(TRAIN_LENGTH)
    bound.describe()
    for length in (4, 32):
        rows = SequenceLayout.of(length, torch.device("cpu"))
        if isinstance(bound, Scaling):
            tau = bound.for_layer(0, 2).temperature(torch.arange(1, length + 1), 8)
            assert not tau.isnan().any()
        if isinstance(bound, Similarity):
            bound.prepare(torch.randn(1, length, 8), torch.randn(1, length, 8))
        if isinstance(bound, Position):
            bound.evaluated().branches(rows, 8)
            index = torch.arange(length)
            if bound.biased:
                assert not bound.bias((index - index[:, None])[None]).isnan().any()
            if bound.samples_positions and bound.target_length >= length:
                bound.sample_position_ids([0, 1], 0, length)
        if isinstance(bound, Visibility):
            index = torch.arange(length)[None]
            bound.mask(index[:, :, None], index[:, None], rows)
            bound.band(rows)
            bound.num_visible_keys(rows)
            bound.branches(RoPE(), rows, 8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GAUAlphaConfig(12, hidden_size=10**12), "parameters; at most 1e\\+11"),
        (lambda: GAUAlphaConfig(12, 8, 8, 4, num_hidden_layers=10**9), "num_hidden_layers must be at most 10,000"),
        (lambda: GAUAlphaConfig(12, hidden_size=True), "hidden_size must be a whole number, got True"),
        (lambda: GAUAlphaConfig(12, hidden_size="x"), "hidden_size must be a whole number, got 'x'"),
        (lambda: GAUAlphaConfig(10**5000), "vocab_size must be at most .* more than 38 digits"),
        (lambda: GAUAlphaConfig(12, use_bias="no"), "use_bias must be true or false"),
        (lambda: GAUAlphaConfig(12, norm_eps=math.nan), "norm_eps must be positive, got nan"),
        (lambda: GAUAlphaConfig(12, hidden_dropout_prob=None), "hidden_dropout_prob must be a number, got None"),
        (lambda: AdamW(betas=(0.9, 1.0)), "Each of betas must be at least 0 and below 1"),
        (lambda: AdamW(betas=(math.nan, 0.9)), "Each of betas must be at least 0 and below 1"),
        (lambda: AdamW(betas=(0.9,)), "betas must be two numbers"),
        (lambda: AdamW(weight_decay=-0.1), "weight_decay must be at least 0"),
        (lambda: AdamW(learning_rate=math.inf), "learning_rate must be positive and at most 3e"),
        (lambda: gau_alpha.scaling.ScalableSoftmax().with_train_length(1), "train_length must be at least 2"),
        (lambda: gau_alpha.scaling.InfoScale().with_train_length(1), "train_length must be at least 2"),
        (lambda: gau_alpha.scaling.LogLength(None).with_train_length(1), "base must be above 1"),
        (lambda: gau_alpha.position.RandomizedPositions(10**12), "target_length must be at most 16,777,216"),
        (lambda: gau_alpha.position.Sandwich(size=10**12), "size must be at most 65,536"),
        (lambda: gau_alpha.position.LeakyReRoPE(factor=math.nan), "factor must be at least 1, got nan"),
        (lambda: stretched_pair(), "attention_key_size must be at least 4"),
    ],
)
def test_message(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def stretched_pair():
    rows = SequenceLayout.of(32, torch.device("cpu"))
    return gau_alpha.position.NTKAware(8).branches(rows, 2)
