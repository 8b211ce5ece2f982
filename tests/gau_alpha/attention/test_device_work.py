"""What a GPU wants: a host that never waits for a value, and few operations, as many for long windows as for short."""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.attention.presets import preset_names, resolve_method
from gau_alpha.extrapolation.diagnostics import AttentionMeter
from gau_alpha.training.batch import with_targets
from gau_alpha.training.loss import masked_lm_loss

pytestmark = pytest.mark.slow  # some twenty seconds, all told

TRAIN_LENGTH = 64
CONFIG = GAUAlphaConfig(100, 32, 64, 16, 4)
PRESETS = sorted({*preset_names()} - {"calibrated", "random_keys"})  # these two need a table that was measured

# what the host has to read a device for
WAITING = {
    "nonzero", "_local_scalar_dense", "is_nonzero", "_unique2", "unique_dim", "unique_consecutive", "bincount",
    "masked_select", "equal", "repeat_interleave", "argwhere",
}  # fmt: skip
VIEWS = {
    "view", "_unsafe_view", "_reshape_alias", "expand", "slice", "select", "transpose", "t", "permute", "unsqueeze",
    "squeeze", "split", "split_with_sizes", "unfold", "as_strided", "detach", "alias", "unbind", "view_as_complex",
    "view_as_real",
}  # fmt: skip


class Recorder(TorchDispatchMode):
    """Lists the operations that launch something, and those that wait."""

    def __init__(self):
        super().__init__()
        self.launched, self.waited = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITING or (name in ("index", "index_put", "index_put_") and boolean(args[1])):
            self.waited.append(name)
        if name not in VIEWS:
            self.launched.append(name)
        return func(*args, **(kwargs or {}))


def boolean(indices):
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def build(name, device="cpu", config=CONFIG):
    torch.manual_seed(0)
    method = resolve_method(name, base=AttentionMethod(), train_length=TRAIN_LENGTH)
    return GAUAlphaForMaskedLM(config, method).to(device)


def batch(length, rows=1, full=True):
    """Every seventh token is a target; rows are of several lengths, or full."""
    ids = torch.arange(rows * length).view(rows, length) % 100
    labels = torch.where(torch.arange(length) % 7 == 3, ids, -100)
    found = {"input_ids": ids, "labels": labels}
    if not full:
        real = torch.arange(length) < length - 5 * torch.arange(rows)[:, None]
        found |= {"attention_mask": real, "labels": labels.where(real, -100), "segment_ids": ids // 30}
    return with_targets(found)


def step(model, given):
    model.train()
    loss, _, count = masked_lm_loss(model, given)
    (loss / count).backward()
    return loss


@torch.no_grad()
def evaluation_pass(model, given, observer=None):
    model.eval()
    positions = given["target_positions"]
    logits = model(given["input_ids"], target_positions=positions, observer=observer)
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), given["input_ids"].gather(1, positions).flatten()
    )


@pytest.fixture
def autocast_on_meta(monkeypatch):
    """The meta device has no autocast; whoever asks for it gets none."""
    real = torch.autocast

    def autocast(device_type, **kwargs):
        return contextlib.nullcontext() if device_type == "meta" else real(device_type, **kwargs)

    monkeypatch.setattr(torch, "autocast", autocast)


@pytest.mark.parametrize("name", PRESETS)
def test_nothing_is_read_on_the_meta_device(name, autocast_on_meta):
    """Tensors there have no values: whatever reads one raises."""
    model = build(name, "meta")
    given = {key: tensor.to("meta") for key, tensor in batch(4096).items()}
    assert step(model, given).device.type == "meta"
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert evaluation_pass(model, given).device.type == "meta"


@pytest.mark.parametrize("full", [True, False], ids=["full", "padded and packed"])
@pytest.mark.parametrize("name", PRESETS)
def test_nothing_is_waited_for(name, full):
    model = build(name)
    for given in (batch(64, 4, full), batch(2100 if name == "softmax" else 300, 2, full)):
        meter = AttentionMeter(4, given["input_ids"].shape[1], TRAIN_LENGTH)
        with Recorder() as recorder:
            step(model, given)
            evaluation_pass(model, given)
            evaluation_pass(model, given, meter)
        assert not recorder.waited


@pytest.mark.parametrize(
    ("name", "most"), [("softmax", 300), ("windowed", 500), ("streaming_llm", 700), ("rerope", 700)]
)
def test_an_evaluation_pass_launches_few_operations(name, most):
    model = build(name)
    given = batch(4096)
    with Recorder() as recorder:
        evaluation_pass(model, given)
    assert len(recorder.launched) <= most, recorder.launched


@pytest.mark.parametrize("name", ["windowed", "streaming_llm", "lm_infinite"])
def test_windows_take_as_many_operations_at_any_length(name):
    counts = []
    for length in (4096, 65_536):
        model, given = build(name), batch(length)
        with Recorder() as recorder:
            evaluation_pass(model, given)
        counts.append(len(recorder.launched))
    assert counts[0] == counts[1]


def test_a_training_step_launches_few_operations():
    config = GAUAlphaConfig(100, 32, 64, 16, 4, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    model, given = build("softmax", config=config), batch(64, 8)
    with Recorder() as recorder:
        step(model, given)
    assert len(recorder.launched) <= 450, recorder.launched
