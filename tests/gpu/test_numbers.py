"""Every method on the GPU gives the CPU's numbers, in float32 and under bfloat16 autocast."""

import pytest
import torch

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.attention.kernels import build_kernel
from gau_alpha.attention.presets import preset_names, resolve_method
from gau_alpha.training.batch import with_targets
from gau_alpha.training.loss import masked_lm_loss

PRESETS = [name for name in preset_names() if name not in ("calibrated", "random_keys")]  # which need a table
TRAIN_LENGTH, LENGTH = 64, 600
LIMITS = {torch.float32: (2e-3, 1e-4), torch.bfloat16: (0.2, 1e-3)}
"""Largest difference of a logit, and of the loss in nats per target."""


def case(name):
    torch.manual_seed(0)
    config = GAUAlphaConfig(200, 128, 256, 64, 3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = GAUAlphaForMaskedLM(config, resolve_method(name, base=AttentionMethod(), train_length=TRAIN_LENGTH)).eval()
    ids = torch.randint(200, (4, LENGTH))
    real = torch.arange(LENGTH) < torch.tensor([[LENGTH], [LENGTH], [LENGTH - 37], [50]])
    labels = torch.where((torch.arange(LENGTH) % 5 == 2) & real, ids, -100)
    return model, with_targets({"input_ids": ids, "attention_mask": real, "labels": labels})


@torch.no_grad()
def results(model, batch):
    loss, _, count = masked_lm_loss(model, batch)
    logits = model(batch["input_ids"], batch["attention_mask"], target_positions=batch["target_positions"])
    targets = logits.flatten(0, 1)[batch["target_index"]].float().cpu()  # (N, V)
    return targets, float(loss) / int(count)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("name", PRESETS)
def test_a_method_gives_the_cpus_numbers(name, dtype, device, note):
    model, batch = case(name)
    model.kernel = build_kernel("reference")
    expected, expected_loss = results(model, batch)
    model.kernel = build_kernel("blocked")
    model.to(device)
    on_device = {key: tensor.to(device) for key, tensor in batch.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
        found, loss = results(model, on_device)
    difference = (found - expected).abs().max().item()
    others = (found.argmax(-1) != expected.argmax(-1)).sum().item()
    note(
        "method | dtype | largest difference of a logit | loss, nats from the CPU's | other predictions",
        name, str(dtype).removeprefix("torch."), f"{difference:.1e}", f"{loss - expected_loss:+.1e}",
        f"{others} of {len(found)}",
    )  # fmt: skip
    most, most_loss = LIMITS[dtype]
    assert difference <= most
    assert abs(loss - expected_loss) <= most_loss


@pytest.mark.parametrize("name", ["softmax", "cosscale", "windowed", "rerope_infoscale", "alibi"])
def test_gradients_are_the_cpus(name, device):
    model, batch = case(name)
    gradients = []
    for place in (torch.device("cpu"), device):
        model.to(place).zero_grad()
        loss, _, count = masked_lm_loss(model, {key: tensor.to(place) for key, tensor in batch.items()})
        (loss / count).backward()
        gradients.append({key: one.grad.cpu().clone() for key, one in model.named_parameters() if one.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], expected, atol=1e-4 * expected.abs().max().item(), rtol=1e-3)


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
