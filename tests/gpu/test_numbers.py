"""Every method on the GPU gives what float64 on a CPU does, in float32 and under bfloat16 autocast."""

import contextlib
import functools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.attention.kernels import build_kernel
from gau_alpha.attention.presets import preset_names, resolve_method
from gau_alpha.training.batch import with_targets
from gau_alpha.training.loss import masked_lm_loss

PRESETS = [name for name in preset_names() if name not in ("calibrated", "random_keys")]  # which need a table
TRAIN_LENGTH, LENGTH = 64, 600
LIMITS = {torch.float32: (0.1, 2e-3, 1e-4), torch.bfloat16: (0.02, 0.05, 1e-3)}
"""Standard deviation of the weights; largest difference of a logit, and of the loss in nats per target.

Weights of 0.02 make scores so small that all keys weigh the same, and a wrong bias changes no logit by 1e-5: float32 is
held to its numbers at 0.1, where scores that are off by 1 % change some logit by 2e-2. bfloat16 rounds away as much
there. Logits vary by 1.2 and 0.25.
"""


class Narrower(TorchDispatchMode):
    """Names the operations whose results are narrower than float64."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        tensors = (one for one in torch.utils._pytree.tree_leaves(found) if isinstance(one, torch.Tensor))
        if any(one.dtype in (torch.float32, torch.complex64, torch.bfloat16) for one in tensors):
            self.names.add(func.overloadpacket.__name__)
        return found


@contextlib.contextmanager
def in_float64():
    """Compute in float64 what the library computes in float32 at least."""
    with pytest.MonkeyPatch.context() as patch, Narrower() as narrower:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)  # that of an integer over an integer
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)
    # temperatures that are 1, handed on
    assert narrower.names <= {"ones_like", "index", "unsqueeze", "detach"}, narrower.names


def case(name, std):
    torch.manual_seed(0)
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = GAUAlphaConfig(200, 128, 256, 64, 4, initializer_range=std, **rates)
    model = GAUAlphaForMaskedLM(config, resolve_method(name, base=AttentionMethod(), train_length=TRAIN_LENGTH)).eval()
    ids = torch.randint(200, (4, LENGTH))
    real = torch.arange(LENGTH) < torch.tensor([[LENGTH], [LENGTH], [LENGTH - 37], [50]])
    labels = torch.where((torch.arange(LENGTH) % 5 == 2) & real, ids, -100)
    return model, with_targets({"input_ids": ids, "attention_mask": real, "labels": labels})


@torch.no_grad()
def results(model, batch):
    loss, _, count = masked_lm_loss(model, batch)
    logits = model(batch["input_ids"], batch["attention_mask"], target_positions=batch["target_positions"])
    targets = logits.flatten(0, 1)[batch["target_index"]].double().cpu()  # (N, V)
    return targets, float(loss) / int(count)


@functools.cache
def exact(name, std):
    model, batch = case(name, std)
    model.double().kernel = build_kernel("reference")
    with in_float64():
        return results(model, batch)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("name", PRESETS)
def test_a_method_gives_what_float64_does(name, dtype, device, note):
    std, most, most_loss = LIMITS[dtype]
    expected, expected_loss = exact(name, std)
    model, batch = case(name, std)
    model.kernel = build_kernel("blocked")
    model.to(device)
    on_device = {key: tensor.to(device) for key, tensor in batch.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
        found, loss = results(model, on_device)
    difference = (found - expected).abs().max().item()
    others = (found.argmax(-1) != expected.argmax(-1)).sum().item()
    note(
        "method | dtype | largest difference of a logit from float64 on a CPU | of the loss, nats | other predictions",
        name, str(dtype).removeprefix("torch."), f"{difference:.1e}", f"{loss - expected_loss:+.1e}",
        f"{others} of {len(found)}",
    )  # fmt: skip
    assert difference <= most
    assert abs(loss - expected_loss) <= most_loss


def gradients(model, batch):
    loss, _, count = masked_lm_loss(model, batch)
    (loss / count).backward()
    return {key: one.grad.double().cpu() for key, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("name", ["softmax", "cosscale", "windowed", "rerope_infoscale", "alibi"])
def test_gradients_are_those_of_float64(name, device):
    model, batch = case(name, std=0.1)
    model.double().kernel = build_kernel("reference")
    with in_float64():
        expected = gradients(model, batch)
    model, batch = case(name, std=0.1)
    found = gradients(model.to(device), {key: tensor.to(device) for key, tensor in batch.items()})
    assert found.keys() == expected.keys()
    for key, one in expected.items():
        torch.testing.assert_close(found[key], one, atol=1e-4 * one.abs().max().item(), rtol=1e-3)


@pytest.mark.parametrize("scale", [None, 128.0], ids=["dot product", "CosScale(128)"])
def test_rounded_operands_cost_what_the_guide_says(scale, device, note):
    """Scores of bfloat16 operands against float64, of random queries and keys that point along each other at times."""
    from gau_alpha.attention.kernels.scores import _RoundedProduct
    from gau_alpha.similarity import CosScale, DotProduct

    query = torch.randn(1, 256, 128, generator=torch.Generator().manual_seed(0))
    key = torch.cat([query, torch.randn(1, 256, 128, generator=torch.Generator().manual_seed(1))], dim=1)
    query, key = (DotProduct() if scale is None else CosScale(scale)).prepare(query, key)
    exact = query.double() @ key.double().transpose(1, 2)
    found = _RoundedProduct.apply(query.to(device), key.to(device))
    assert found.dtype == torch.float32
    error = (found.cpu().double() - exact).abs().max().item()
    note("scores of bfloat16 operands | largest error, nats", scale or "dot product", f"{error:.3f}")
    assert error <= (0.03 if scale is None else 0.4)
