"""The plain model that ours is timed against computes what ours computes, so that the comparison is one."""

import torch
from baseline_model import PlainGAU, plain_loss

from gau_alpha import GAUAlphaConfig, GAUAlphaModule


def test_plain_and_ours_agree_on_logits_loss_and_gradients():
    plain = PlainGAU(50, 16, 24, 8, 2, dropout=0.0)
    config = GAUAlphaConfig(50, 16, 24, 8, 2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    module = GAUAlphaModule(config, train_length=12)
    module.model.load_state_dict(plain.state_dict())
    ids = torch.randint(2, 50, (3, 12))
    mask = (torch.arange(12) < torch.tensor([[12], [7], [9]])).long()
    labels = torch.where((torch.rand(3, 12) < 0.4) & (mask == 1), ids, -100)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    ours, theirs = module.model(ids, attention_mask=mask), plain(ids, mask)
    torch.testing.assert_close(ours[mask == 1], theirs[mask == 1], atol=1e-5, rtol=1e-5)
    nll, _, count = module._evaluate(batch)
    loss = plain_loss(plain, batch)
    torch.testing.assert_close(nll / count, loss)
    (nll / count).backward()
    loss.backward()
    for (name, parameter), other in zip(module.model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_plain_gives_the_golden_logits(golden):
    plain = PlainGAU(120, 64, 128, 32, 3).eval()
    plain.cls["predictions"]["decoder"] = torch.nn.Linear(64, 120, bias=False)  # the golden weights are not tied
    weights = {name.removeprefix("weights."): value for name, value in golden.items() if name.startswith("weights.")}
    plain.load_state_dict(weights)
    logits = plain(golden["input_ids"], golden["attention_mask"])
    real = golden["attention_mask"] == 1
    torch.testing.assert_close(logits[real], golden["logits.softmax"][real], atol=2e-5, rtol=0)
