"""Padding, packing, selected logits, methods swapped and restored."""

import pytest
import torch
from strategy_cases import CASES

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.position import RoPE
from gau_alpha.scaling import InfoScale, Scaling
from gau_alpha.similarity import CosScale

# Wide initial weights: with the usual 0.02, attention would hardly matter, and its faults would hide.
CONFIG = GAUAlphaConfig(50, 32, 48, 8, 3, initializer_range=0.3)

ROUNDING = 1e-4
"""Where sums of another length are compared. A processor cuts them up its own way, and wide weights carry the rounding
on: 2e-5 in logits of up to 7 was met with MKL_CBWR=COMPATIBLE. Without the mask documents move them by 2 or more."""


@pytest.fixture
def model():
    return GAUAlphaForMaskedLM(CONFIG).eval()


@pytest.mark.parametrize("name", CASES)
def test_padding_never_changes_a_real_token(model, name):
    model.set_method(CASES[name].method)
    row = torch.randint(1, 50, (1, 37))
    with torch.no_grad():
        alone = model(row)
        for width in (64, 640):
            padded = torch.zeros(1, width, dtype=torch.int64)
            padded[:, :37] = row
            torch.testing.assert_close(
                model(padded, padded > 0)[:, :37], alone, atol=ROUNDING, rtol=0, msg=lambda m, w=width: f"{w}: {m}"
            )
        batch = torch.randint(1, 50, (3, 90))
        batch[1, :37], batch[1, 37:] = row, 0
        torch.testing.assert_close(model(batch, batch > 0)[1:2, :37], alone, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_a_packed_document_equals_the_document_alone(model, name):
    model.set_method(CASES[name].method)
    documents = [torch.randint(1, 50, (1, length)) for length in (20, 1, 33)]
    segments = torch.cat([torch.full_like(document, i) for i, document in enumerate(documents)], dim=1)
    with torch.no_grad():
        packed = model(torch.cat(documents, dim=1), segment_ids=segments)
        alone = torch.cat([model(document) for document in documents], dim=1)
    torch.testing.assert_close(packed, alone, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_what_a_hook_keeps_stays_as_it_saw_it(model, training):
    """Projections are overwritten, but not those that somebody watches."""
    model.train(training)
    kept = []
    for block in model.gau_alpha.encoder.blocks():
        block.gau.i_dense.register_forward_hook(lambda _, __, output: kept.append((output.detach(), output.clone())))
    with torch.set_grad_enabled(training):
        loss = model(torch.randint(1, 50, (2, 30))).square().sum()
    if training:
        loss.backward()
    assert len(kept) == 3
    for now, then in kept:
        assert torch.equal(now, then)


@pytest.mark.parametrize("name", CASES)
def test_other_lengths_in_between_leave_no_trace(model, name):
    model.set_method(CASES[name].method)
    short, long = torch.randint(1, 50, (2, 6)), torch.randint(1, 50, (1, 384))
    with torch.no_grad():
        before = model(short)
        model(long)
        assert torch.equal(model(short), before)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("precision", ["float32", "autocast", "bfloat16"])
def test_finite_in_every_precision(model, name, precision):
    model.set_method(CASES[name].method)
    if precision == "bfloat16":
        model.to(torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        for length in (1, 2, 700):
            assert model(torch.randint(1, 50, (1, length))).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_131072_tokens_in_every_precision(name):
    """One layer, so that only four queries are computed, but over all keys."""
    ids = torch.randint(1, 50, (1, 131_072))
    places = torch.tensor([[0, 1, 65_536, 131_071]])
    results = {}
    for precision in ("float32", "autocast", "bfloat16"):
        torch.manual_seed(1)
        model = GAUAlphaForMaskedLM(GAUAlphaConfig(50, 16, 16, 8, 1, initializer_range=0.3), CASES[name].method).eval()
        if precision == "bfloat16":
            model.to(torch.bfloat16)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            results[precision] = model(ids, target_positions=places).float()
        torch.testing.assert_close(results[precision], results["float32"], atol=0.1, rtol=0)
    assert results["float32"].isfinite().all()


def test_selected_logits_are_those_of_the_whole(model):
    ids = torch.randint(1, 50, (2, 9))
    places = torch.tensor([[0, 5, 5], [8, 0, 2]])
    with torch.no_grad():
        expected = model(ids)[torch.arange(2)[:, None], places]
        torch.testing.assert_close(model(ids, target_positions=places), expected)
        assert model(ids, target_positions=places[:, :0]).shape == (2, 0, 50)


def test_using_another_method_and_back(model):
    ids, own = torch.randint(1, 50, (1, 40)), model.method
    with torch.no_grad():
        before = model(ids)
        with model.using(AttentionMethod(scaling=InfoScale(4))):
            assert (model(ids) - before).abs().max() > 1e-4
        assert torch.equal(model(ids), before)
        with pytest.raises(RuntimeError), model.using(AttentionMethod(CosScale(8))):
            raise RuntimeError
    assert model.method is own


class Learned(Scaling):
    """A scaling with state of its own in every layer."""

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.start = start
        self.weight = torch.nn.Parameter(torch.tensor(float(start)))

    def temperature(self, num_visible_keys, key_size):
        return self.weight * torch.ones_like(num_visible_keys, dtype=torch.float32)


def test_methods_go_by_name(model):
    own = model.method
    model.train_length = 16
    for name, expected in {
        "infoscale": InfoScale(train_length=16),
        "trained": own.scaling,
        own.replace(scaling="InfoScale"): InfoScale(train_length=16),
        own.replace(scaling="gau_alpha.scaling.InfoScale"): InfoScale(train_length=16),
        own.replace(scaling=InfoScale(train_length=8)): InfoScale(train_length=8),
    }.items():
        with model.using(name):
            assert model.method.scaling.describe() == expected.describe()
            assert model.method.similarity is own.similarity
    with model.using(own.replace(visibility="Window")):
        assert model.method.visibility.radius == 8
    assert model.method is own


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("infoscael", "Unknown method 'infoscael'; choose from: trained, .*infoscale"),
        ("infoscale", "does not know its train_length, which the method 'infoscale' may need"),
        (3, "must be an AttentionMethod or the name of a preset, got 3"),
    ],
)
def test_a_method_that_there_is_not_is_refused_at_once(model, given, message):
    own = model.method
    with pytest.raises(ValueError, match=message), model.using(given):
        pass
    with model.using("trained"):  # which needs nothing
        assert model.method is own


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"scaling": "InfoScael"}, "method.scaling names 'InfoScael'; what is known there is .*InfoScale, "),
        ({"scaling": "Window"}, "method.scaling names 'Window'; what is known there is"),
        ({"scaling": 3}, "method.scaling must name a class"),
        ({"scaling": RoPE()}, "method.scaling must name a class"),
        ({"scalings": "InfoScale"}, "There is no axis scalings; the axes are similarity, scaling, position, "),
    ],
    ids=str,
)
def test_a_strategy_that_there_is_not_is_refused_at_once(axes, message):
    with pytest.raises(ValueError, match=message):
        AttentionMethod().replace(**axes)


def test_learned_strategies_have_one_state_per_layer():
    model = GAUAlphaForMaskedLM(CONFIG, AttentionMethod(scaling=Learned()))
    names = [name for name, _ in model.named_parameters() if ".method." in name]
    assert names == [f"gau_alpha.encoder.layer.{layer}.gau.method.scaling.weight" for layer in range(3)]
    model(torch.randint(1, 50, (1, 12))).logsumexp(-1).sum().backward()
    assert all(model.get_parameter(name).grad.abs() > 0 for name in names)


def test_an_override_keeps_what_layers_learned_on_other_axes():
    model = GAUAlphaForMaskedLM(CONFIG, AttentionMethod(scaling=Learned())).eval()
    for layer, block in enumerate(model.gau_alpha.encoder.blocks()):
        torch.nn.init.constant_(block.gau.method.scaling.weight, layer + 2.0)
    with model.using(model.method.replace(similarity=CosScale(4.0))):
        blocks = model.gau_alpha.encoder.blocks()
        assert [block.gau.method.scaling.weight.item() for block in blocks] == [2.0, 3.0, 4.0]
        assert all(isinstance(block.gau.method.similarity, CosScale) for block in blocks)


def test_layers_without_state_share_a_plan(model, monkeypatch):
    planned = []
    original = AttentionMethod.plan
    monkeypatch.setattr(AttentionMethod, "plan", lambda self, *args: planned.append(self) or original(self, *args))
    model(torch.randint(1, 50, (1, 5)))
    assert len(planned) == 1


def test_state_dict_holds_no_tables(model):
    assert not [name for name in model.state_dict() if "method" in name or "rotary" in name or "position" in name]


@pytest.mark.slow
def test_compiled_it_has_the_same_keys_and_logits(model):
    ids, keys = torch.randint(1, 50, (2, 30)), list(model.state_dict())
    with torch.no_grad():
        before = model(ids)
        model.compile(backend="aot_eager")
        torch.testing.assert_close(model(ids), before, atol=1e-6, rtol=0)
    assert list(model.state_dict()) == keys


def test_dropout_acts_in_training_only():
    model = GAUAlphaForMaskedLM(CONFIG)
    ids = torch.randint(1, 50, (1, 30))
    with torch.no_grad():
        assert not torch.equal(model.train()(ids), model(ids))
        assert torch.equal(model.eval()(ids), model(ids))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention_mask": torch.ones(1, 8)}, r"attention_mask must have shape \(batch, 9\), got \(1, 8\)"),
        ({"segment_ids": torch.ones(9)}, "segment_ids must have shape"),
        ({"position_ids": torch.ones(1, 10)}, "position_ids must have shape"),
    ],
)
def test_shapes_are_checked(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model(torch.ones(1, 9, dtype=torch.int64), **arguments)
    with pytest.raises(ValueError, match="input_ids must have shape"):
        model(torch.ones(9, dtype=torch.int64))


@pytest.mark.parametrize(
    ("field", "value"),
    [("hidden_size", 0), ("attention_key_size", 7), ("hidden_dropout_prob", 1.0), ("vocab_size", -1)],
)
def test_impossible_sizes_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        GAUAlphaConfig(**{"vocab_size": 10, field: value})


@pytest.mark.parametrize("name", CASES)
def test_the_last_layer_computes_targets_alone(name):
    config = GAUAlphaConfig(
        30, 16, 24, 8, 2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.5
    )
    model = GAUAlphaForMaskedLM(config, CASES[name].method).eval()
    input_ids, positions = torch.randint(0, 30, (3, 19)), torch.randint(0, 19, (3, 5))
    flat = (positions + 19 * torch.arange(3)[:, None]).flatten()
    computed = []
    last = model.gau_alpha.encoder.layer[-1].gau
    last.o_dense.register_forward_hook(lambda module, args, out: computed.append(out.shape[1]))
    with torch.no_grad():
        expected = model(input_ids).flatten(0, 1)[flat].unflatten(0, (3, 5))
        torch.testing.assert_close(model(input_ids, target_positions=positions), expected, atol=1e-5, rtol=0)
        watched = model(input_ids, target_positions=positions, observer=lambda *seen: None)
    torch.testing.assert_close(watched, expected, atol=1e-5, rtol=0)
    assert computed == [19, 5, 19], "only targets, unless someone watches"
    model.train()
    torch.testing.assert_close(model(input_ids, target_positions=positions), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation_checkpointing", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_targets_are_those_of_computing_everything(name, activation_checkpointing):
    config = GAUAlphaConfig(
        30, 16, 24, 8, 2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.5
    )
    model = GAUAlphaForMaskedLM(config, CASES[name].method, activation_checkpointing=activation_checkpointing)
    input_ids = torch.randint(0, 30, (4, 19))
    mask = (torch.arange(19) < torch.tensor([19, 12, 19, 3])[:, None]).long()  # (4, 19)
    places = torch.tensor([[3, 0, 3], [1, 11, 2], [18, 2, 3], [0, 0, 0]])  # in no order, some twice
    upstream = torch.randn(4, 3, 30)
    gradients = []
    whole = model(input_ids, mask)[torch.arange(4)[:, None], places]
    for logits in (whole, model(input_ids, mask, target_positions=places)):
        model.zero_grad()
        (logits * upstream).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-4, rtol=1e-3)


def test_no_target_at_all():
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(30, 16, 24, 8, 2))
    logits = model(torch.randint(0, 30, (2, 7)), target_positions=torch.empty(2, 0, dtype=torch.long))
    assert logits.shape == (2, 0, 30)
    logits.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
