"""Nothing in a training step or an evaluation pass makes the host wait for the device."""

import contextlib

import pytest
import torch

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaModule
from gau_alpha.attention.presets import resolve_method
from gau_alpha.extrapolation.diagnostics import AttentionMeter
from gau_alpha.training.optimizers import parameter_groups


@contextlib.contextmanager
def waiting_is_an_error(device):
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("full", [True, False], ids=["full rows", "padded rows"])
@pytest.mark.parametrize(
    "name", ["softmax", "cosscale_infoscale", "windowed", "streaming_llm", "rerope", "alibi", "pose"]
)
def test_step_and_pass(name, full, device):
    torch.manual_seed(0)
    method = resolve_method(name, base=AttentionMethod(), train_length=64)
    module = GAUAlphaModule(GAUAlphaConfig(200, 128, 256, 64, 3), 64, method).to(device).train()
    optimizer = torch.optim.AdamW(parameter_groups(module.model, 0.01), lr=1e-3, fused=True)
    ids = torch.randint(200, (8, 64))
    batch = {"input_ids": ids, "labels": torch.where(torch.rand(ids.shape) < 0.15, ids, -100)}
    batch["attention_mask"] = torch.arange(64) < (64 if full else 64 - torch.arange(8)[:, None])
    batch["sample_ids"] = torch.arange(8)
    for attempt in range(3):  # the first one sets libraries up
        prepared = module.prepare(batch, epoch=0)
        prepared = {key: tensor.pin_memory() if device.type == "cuda" else tensor for key, tensor in prepared.items()}
        with waiting_is_an_error(device) if attempt else contextlib.nullcontext():
            moved = {key: tensor.to(device, non_blocking=True) for key, tensor in prepared.items()}
            with torch.autocast(device.type, torch.bfloat16):
                loss, _, count = module.training_loss(moved, 0)
            (loss / count).backward()
            optimizer.step()
            optimizer.zero_grad()

    module.eval()
    long_ids, positions = torch.randint(200, (1, 4096), device=device), torch.arange(0, 4096, 7, device=device)[None]
    for attempt in range(3):
        meter = AttentionMeter(3, 4096, 64)
        watched = waiting_is_an_error(device) if attempt else contextlib.nullcontext()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16), watched:
            module.model(long_ids, target_positions=positions)
            module.model(long_ids, target_positions=positions, observer=meter)
