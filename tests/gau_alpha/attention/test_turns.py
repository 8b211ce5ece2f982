"""Layers in turns: which layer has what, what a replaced axis does, files, and what is refused."""

import pytest
import slow_attention as slow
import torch
from strategy_cases import KEY_SIZE

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.presets import build_strategies, load_preset, method_from, preset_names, resolve_method
from gau_alpha.attention.turns import Axes
from gau_alpha.normalizer import SinkSoftmax
from gau_alpha.position import ALiBi, KerpleLog, NoPosition, PoSE, RoPE
from gau_alpha.scaling import InfoScale, NoScaling
from gau_alpha.similarity import CosScale
from gau_alpha.visibility import AttentionSinks, Full, Window

SWAN = {
    "every": 3,
    "local": {
        "position": "gau_alpha.position.RoPE",
        "visibility": {"class_path": "Window", "init_args": {"radius": 2}},
    },
    "full": {"position": "gau_alpha.position.NoPosition", "visibility": "gau_alpha.visibility.Full"},
}


def model_of(method, layers=7):
    torch.manual_seed(0)
    return GAUAlphaForMaskedLM(GAUAlphaConfig(20, 16, 32, KEY_SIZE, layers), method).eval()


def kinds(model, axis="visibility"):
    return [type(getattr(block.gau.method, axis)) for block in model.gau_alpha.encoder.blocks()]


def test_the_last_layer_of_each_turn_is_full():
    model = model_of(method_from(SWAN))
    assert kinds(model) == [Window, Window, Full, Window, Window, Full, Window]
    assert kinds(model, "position") == [RoPE, RoPE, NoPosition, RoPE, RoPE, NoPosition, RoPE]
    methods = [block.gau.method for block in model.gau_alpha.encoder.blocks()]
    assert len(set(methods)) == 2, "two methods, and so two plans in a forward pass"
    assert model.method is methods[0]


def test_a_forward_pass_plans_each_method_once(monkeypatch):
    planned = []
    plan = AttentionMethod.plan
    monkeypatch.setattr(AttentionMethod, "plan", lambda self, *args: planned.append(self) or plan(self, *args))
    model_of(method_from(SWAN))(torch.randint(20, (1, 9)))
    assert len(planned) == 2


def test_each_layer_computes_what_its_own_method_does():
    """The model, layer by layer, against layers that are handed their strategies one at a time."""
    model, ids = model_of(method_from(SWAN)), torch.randint(20, (2, 23))
    mask = torch.arange(23) < torch.tensor([[23], [11]])
    x = model.gau_alpha.embeddings(ids)
    layout = SequenceLayout.of(23, ids.device, mask)
    for number, block in enumerate(model.gau_alpha.encoder.blocks()):
        own = AttentionMethod(position=NoPosition()) if number in (2, 5) else AttentionMethod(visibility=Window(2))
        x = block(x, own.plan(layout, KEY_SIZE), model.kernel)
    torch.testing.assert_close(model(ids, mask)[mask], model.cls(x)[mask], atol=1e-6, rtol=0)


def test_a_full_layer_equals_a_slow_loop():
    query, key, value = torch.randn(3, 1, 12, KEY_SIZE).unbind()
    for layer, score, sees in (
        (0, slow.rope_score(), slow.window(2)),
        (2, slow.biased(lambda d: 0.0), slow.everything),
    ):
        method = method_from(SWAN).for_layers(3)[layer]
        plan = method.plan(SequenceLayout.of(12, query.device), KEY_SIZE)
        ours = model_of(method_from(SWAN)).kernel(*method.similarity.prepare(query, key), value, plan)
        q, k = (x[0].double().numpy() for x in (query, key))
        prepared = [slow.dot_product(*pair) for pair in zip(q, k, strict=True)]
        q, k = ([pair[side] for pair in prepared] for side in (0, 1))
        expected = slow.attention(q, k, value[0].double().numpy(), score, lambda n: 1.0, sees, [True] * 12, [0] * 12)
        torch.testing.assert_close(ours[0].double(), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_an_axis_that_is_replaced_is_so_in_all_layers():
    model = model_of(method_from(SWAN))
    scaled = model.method.replace(scaling=InfoScale(6))
    with model.using(scaled):
        assert kinds(model) == [Window, Window, Full, Window, Window, Full, Window]
        assert kinds(model, "position")[2] is NoPosition
        assert set(kinds(model, "scaling")) == {InfoScale}
    with model.using(model.method.replace(visibility=Window(4))):
        assert set(kinds(model)) == {Window}
        assert kinds(model, "position")[2] is NoPosition
    plain = model.method.replace(visibility=Full(), position=RoPE())
    assert plain.turns is None
    with model.using(plain):
        assert len({block.gau.method for block in model.gau_alpha.encoder.blocks()}) == 1
    assert kinds(model)[2] is Full, "as before"


def test_turns_on_a_model_that_was_trained_without():
    model = model_of(AttentionMethod(), layers=4)
    local_stays = method_from({"every": 2, "full": {"position": "gau_alpha.position.NoPosition"}})
    with model.using(model.method.replace(turns=local_stays.turns)):
        assert kinds(model, "position") == [RoPE, NoPosition, RoPE, NoPosition]
    with model.using(resolve_method("modernbert", model.method, 8)):
        assert kinds(model) == [Window, Window, Full, Window]
        assert model.method.visibility.radius == 4


def test_what_layers_learn_stays_theirs():
    method = AttentionMethod(
        visibility=Window(3), normalizer=SinkSoftmax(), every=2, full=Axes(position=KerpleLog(), visibility=Full())
    )
    model = model_of(method, layers=4)
    learned = [name for name, _ in model.named_parameters() if ".method." in name]
    assert len([name for name in learned if name.endswith("normalizer.b")]) == 4
    assert [name for name in learned if name.endswith("position.raw")] == [
        f"gau_alpha.encoder.layer.{layer}.gau.method.position.raw" for layer in (1, 3)
    ]
    model(torch.randint(20, (2, 9))).logsumexp(-1).sum().backward()
    assert all(model.get_parameter(name).grad.abs().sum() > 0 for name in learned)
    with torch.no_grad():
        model.get_parameter(learned[-1]).fill_(2.5)
    with model.using(model.method.replace(scaling=InfoScale(6))):
        assert model.get_parameter(learned[-1]).flatten()[0] == 2.5


def test_description_and_folder_keep_turns(tmp_path):
    method = method_from(SWAN)
    described = method.describe()
    assert described["every"] == 3
    assert described["full"]["init_args"].keys() == {"position", "visibility"}
    assert method_from(described).describe() == described
    model = model_of(method)
    model.save_pretrained(tmp_path)
    again = GAUAlphaForMaskedLM.from_pretrained(tmp_path)
    assert kinds(again) == kinds(model)
    ids = torch.randint(20, (2, 9))
    assert torch.equal(again(ids), model(ids))
    assert '"normalization": null' in (tmp_path / "config.json").read_text()
    assert method.summary().endswith("; every 3 layers NoPosition() · Full()")


def test_train_length_is_filled_in_in_both():
    method = method_from({**SWAN, "local": {"visibility": "Window"}, "scaling": "InfoScale"}).with_train_length(64)
    assert method.visibility.radius == 32
    bound = AttentionMethod(every=2, full=Axes(visibility=Window())).with_train_length(64)
    assert bound.turns.full["visibility"].radius == 32
    assert bound.with_train_length(64).turns.full == bound.turns.full, "the same objects"


@pytest.mark.parametrize("name", [name for name in preset_names() if "turns" in load_preset(name)])
def test_presets_with_turns(name):
    method = resolve_method(name, AttentionMethod(CosScale(4.0)), 64)
    assert isinstance(method.visibility, Window)
    assert isinstance(method.turns.full["visibility"], Full)
    assert resolve_method(name, method, 64) is method, "what was trained stays"
    assert resolve_method("softmax", method, 64).turns is None


@pytest.mark.parametrize(
    ("name", "trained", "concerns"),
    [
        ("modernbert", AttentionMethod(), []),
        ("swan", AttentionMethod(), ["NoPosition has to be trained, and was not"]),
        ("softmax", method_from(SWAN), ["position overridden: the weights were trained without rotations"]),
        ("infoscale", method_from(SWAN), []),
        ("rerope", method_from(SWAN), ["position overridden: the weights were trained without rotations"]),
    ],
)
def test_compatibility_warnings_look_at_full_layers_too(name, trained, concerns):
    assert resolve_method(name, trained, 64).compatibility_warnings(trained) == concerns


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: method_from({**SWAN, "every": 1}),
            "every must be at least 2, got 1: with fewer no layer would be local",
        ),
        (lambda: method_from({**SWAN, "every": "3"}), "every must be of type int, got '3'"),
        (lambda: method_from({**SWAN, "full": {}}), "full names no axis"),
        (lambda: method_from({"every": 3}), "every: 3 says that layers take turns, but not what full layers have"),
        (lambda: method_from({"full": SWAN["full"]}), "say every how many layers one is full"),
        (lambda: method_from({**SWAN, "full": {"visibilty": "Full"}}), "full has no argument 'visibilty'; it takes"),
        (lambda: method_from({**SWAN, "full": {"visibility": "os.system"}}), "full.visibility names 'os.system'"),
        (lambda: model_of(method_from(SWAN), layers=2), "Every 3 layers one is full, but there are 2: none would be"),
        (
            lambda: AttentionMethod(every=2, full=Axes(position=NoPosition(), visibility=AttentionSinks())),
            "NoPosition rotates nothing",
        ),
        (
            lambda: AttentionMethod(position=ALiBi(), every=2, full=Axes(visibility=AttentionSinks())),
            "ALiBi rotates nothing",
        ),
        (
            lambda: AttentionMethod(every=2, full=Axes(position=PoSE(64))),
            "PoSE draws the positions that all layers see",
        ),
    ],
)
def test_nonsense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_shared_axes_stand_beside_local_and_full():
    strategies = build_strategies({**SWAN, "scaling": "NoScaling"})
    assert {axis: type(one).__name__ for axis, one in strategies.items()} == {
        "scaling": "NoScaling", "position": "RoPE", "visibility": "Window", "turns": "Turns",
    }  # fmt: skip
    assert isinstance(strategies["scaling"], NoScaling)
