"""Operations are counted as torch counts those of a step that really runs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaModule
from gau_alpha.attention.presets import resolve_method
from gau_alpha.training import flops
from gau_alpha.training.flops import ModelFlops, computing_dtype, known_peak, measured_rate
from gau_alpha.visibility import Window

LENGTH, ROWS, VOCABULARY = 48, 6, 50


def build(method=None, **config):
    sizes = {"num_hidden_layers": 3, "hidden_size": 16, "intermediate_size": 24, "attention_key_size": 8}
    return GAUAlphaModule(GAUAlphaConfig(VOCABULARY, **sizes | config), LENGTH, method)


def batch_of(layout):
    generator = torch.Generator().manual_seed(5)
    length = 37 if layout == "another length" else LENGTH
    ids = torch.randint(2, VOCABULARY, (ROWS, length), generator=generator)
    hidden = torch.rand(ids.shape, generator=generator) < 0.2
    mask = torch.ones_like(ids)
    if layout == "padded":
        mask = (torch.arange(length) < torch.arange(8, 8 + 7 * ROWS, 7)[:, None]).long()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.where(hidden & mask.bool(), ids, -100)}
    if layout == "packed":
        batch["segment_ids"] = torch.arange(length).div(13, rounding_mode="floor").expand(ROWS, -1)
    if layout == "no targets":
        batch["labels"] = torch.full_like(ids, -100)
    return batch


def counted_by_torch(module, batch):
    with FlopCounterMode(display=False) as counter:
        module.training_loss(batch, 0)[0].backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("layout", ["full", "padded", "packed", "another length", "no targets"])
@pytest.mark.parametrize("name", ["softmax", "cosscale_infoscale", "alibi"])
def test_a_step_needs_as_many_as_torch_counts(layout, name):
    module = build(resolve_method(name, base=AttentionMethod(), train_length=LENGTH))
    batch = module.prepare(batch_of(layout), 0)
    assert ModelFlops(module.model).training(batch) == counted_by_torch(module, batch)


@pytest.mark.parametrize(
    "config", [{"tie_word_embeddings": False}, {"use_bias": True}, {"num_hidden_layers": 1}], ids=str
)
def test_other_models(config):
    module = build(**config)
    batch = module.prepare(batch_of("padded"), 0)
    assert ModelFlops(module.model).training(batch) == counted_by_torch(module, batch)


def test_what_is_computed_again_does_not_count():
    module = build()
    batch = module.prepare(batch_of("full"), 0)
    plain = counted_by_torch(module, batch)
    module.model.gau_alpha.encoder.activation_checkpointing = True
    assert counted_by_torch(module, batch) > plain
    assert ModelFlops(module.model).training(batch) == plain


def test_a_window_counts_the_pairs_that_it_shows():
    module = build(AttentionMethod(visibility=Window(radius=5)))
    batch = module.prepare(batch_of("full"), 0)
    everything, shown = (ModelFlops(model).forward(batch) for model in (build().model, module.model))
    index = torch.arange(LENGTH)
    pairs = int(((index[:, None] - index).abs() <= 5).sum())
    hidden = LENGTH**2 - pairs
    targets = batch["target_positions"].shape[1]  # of the last layer's queries, of LENGTH
    expected = 2 * (8 + 24) * ROWS * (2 * hidden + hidden * targets / LENGTH)
    assert everything - shown == pytest.approx(expected, rel=1e-6)


def test_several_choices_of_a_row_are_rows():
    model = build().model
    ids = torch.zeros(4, 3, LENGTH, dtype=torch.int64)
    assert ModelFlops(model).forward({"input_ids": ids}) == ModelFlops(model).forward({"input_ids": ids.flatten(0, 1)})


def test_a_measured_rate_is_that_of_a_product(monkeypatch):
    """By a clock that moves on by a tenth of a second at each look."""
    now = iter(range(1000))
    monkeypatch.setattr(flops.time, "perf_counter", lambda: next(now) / 10)
    monkeypatch.setitem(flops._SIZES, "cpu", 64)
    before = torch.random.get_rng_state()
    assert measured_rate(torch.device("cpu"), torch.float32) == pytest.approx(2 * 64**3 / 0.1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("measured", "taken"), [(700e12, True), (300e12, False), (1100e12, False)])
def test_a_peak_that_a_product_speaks_against_is_not_taken(monkeypatch, measured, taken):
    monkeypatch.setattr(flops, "get_available_flops", lambda device, dtype: 989e12)
    found = known_peak(torch.device("cuda"), torch.bfloat16, measured)
    assert found == (989e12 if taken else None)


def test_no_peak_of_a_cpu_is_known():
    assert known_peak(torch.device("cpu"), torch.float32, 1e11) is None


def test_the_precision_says_what_is_multiplied():
    precisions = ("32-true", "bf16-mixed", "bf16-true", "16-mixed", "64-true")
    found = [computing_dtype(precision) for precision in precisions]
    assert found == [torch.float32, torch.bfloat16, torch.bfloat16, torch.float16, torch.float64]
