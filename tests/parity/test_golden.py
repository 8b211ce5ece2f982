"""The model agrees with the published code where that is right."""

import itertools
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from gau_alpha import AttentionMethod, GAUAlphaForMaskedLM
from gau_alpha.attention.kernels import build_kernel
from gau_alpha.position import ALiBi, ReRoPE, YaRN
from gau_alpha.scaling import InfoScale, LogLength, YaRNTemperature
from gau_alpha.similarity import CosScale

METHODS = {
    "softmax": AttentionMethod(),
    "softmax_plus": AttentionMethod(scaling=LogLength(base=512)),
    "infoscale": AttentionMethod(scaling=InfoScale(train_length=16)),
    "cosscale8": AttentionMethod(CosScale(8)),
    "cosscale8_infoscale": AttentionMethod(CosScale(8), InfoScale(train_length=16)),
    "cosscale128_infoscale": AttentionMethod(CosScale(128), InfoScale(train_length=16)),
    # the published code takes s from the padded width, 48 / 16, for every row
    "yarn": AttentionMethod(scaling=YaRNTemperature(16, factor=3.0), position=YaRN(16, factor=3.0)),
    # and divides its bias by √d
    "alibi": AttentionMethod(position=ALiBi(slope=2**-8 / 32**0.5)),
}


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory):
    """The golden weights as a folder in Hugging Face layout."""
    folder = tmp_path_factory.mktemp("golden")
    weights = {name.removeprefix("weights."): x for name, x in golden.items() if name.startswith("weights.")}
    save_file(weights, folder / "model.safetensors")
    config = {
        "model_type": "gau_alpha",
        "vocab_size": 120,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "attention_key_size": 32,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kernel", ["reference", "blocked"])
@pytest.mark.parametrize("case", METHODS)
def test_published_code(golden, folder, case, kernel):
    model = GAUAlphaForMaskedLM.from_pretrained(folder, METHODS[case])
    model.kernel = build_kernel(kernel)
    real = golden["attention_mask"].bool()
    entropy = {}

    def observe(layer, weights, queries, keys, *_):
        for column, query in enumerate(queries[0, 0].tolist()):
            entropy[layer, query] = torch.special.entr(weights[:, 0, column]).sum(-1)

    with torch.no_grad():
        logits = model(golden["input_ids"], golden["attention_mask"], observer=observe)
    torch.testing.assert_close(logits[real], golden[f"logits.{case}"][real], atol=2e-5, rtol=0)
    loss = F.cross_entropy(logits[real], golden["input_ids"][real])
    torch.testing.assert_close(loss, golden[f"loss.{case}"], atol=2e-6, rtol=0)
    first = torch.stack([entropy[0, query] for query in range(48)], dim=1)
    torch.testing.assert_close(first[real], golden[f"entropy_layer0.{case}"][real], atol=2e-5, rtol=0)


def test_cases_differ(golden):
    """Were all cases alike, the test above could not tell methods apart."""
    real = golden["attention_mask"].bool()
    cases = list(METHODS)
    for left, right in itertools.pairwise(cases):
        assert (golden[f"logits.{left}"] - golden[f"logits.{right}"])[real].abs().max() > 1e-2


def test_saved_again_is_equal(folder, tmp_path):
    GAUAlphaForMaskedLM.from_pretrained(folder, METHODS["cosscale8_infoscale"]).save_pretrained(tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = GAUAlphaForMaskedLM.from_pretrained(tmp_path)
    assert again.method.describe() == METHODS["cosscale8_infoscale"].describe()
    assert not again.training


def test_half_a_checkpoint_is_named(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    gone = weights.pop("gau_alpha.encoder.layer.1.gau.o_dense.weight")
    weights["surplus"] = gone
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ValueError, match=r"missing: gau_alpha.encoder.layer.1.gau.o_dense.weight; left over: surplus"):
        GAUAlphaForMaskedLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_no_model_folder(folder, tmp_path, missing):
    for name in {"config.json", "model.safetensors"} - {missing}:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ValueError, match=missing):
        GAUAlphaForMaskedLM.from_pretrained(tmp_path)


def test_contradictory_tie_is_named(folder, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="tie_word_embeddings"):
        GAUAlphaForMaskedLM.from_pretrained(tmp_path)


def published_model(golden, far_score):
    """The published ReRoPE model with window 8, in float64; far_score(q, k, row) is what it makes of far keys."""
    weights = {name: x.double() for name, x in golden.items() if name.startswith("weights.")}
    words, types = (
        weights[f"weights.gau_alpha.embeddings.{kind}_embeddings.weight"] for kind in ("word", "token_type")
    )
    real, place = golden["attention_mask"].bool(), torch.arange(48)
    near = (place[:, None] - place).abs() < 8

    def norm(x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-12).sqrt()

    x = norm(words[golden["input_ids"]] + types[0])
    for layer in range(3):
        part = {
            name: weights[f"weights.gau_alpha.encoder.layer.{layer}.gau.{name}.weight"]
            for name in ("i_dense", "q_scaleoffset", "k_scaleoffset", "o_dense")
        }
        u, v, base = F.silu(x @ part["i_dense"].T).split([128, 128, 32], dim=-1)
        q, k = base * part["q_scaleoffset"], base * part["k_scaleoffset"]
        turned = interleaved(turn(q, place)) @ interleaved(turn(k, place)).transpose(1, 2)
        score = torch.where(near, turned, far_score(q, k)) / 32**0.5
        weight = score.masked_fill(~real[:, None], -torch.inf).softmax(-1)
        x = norm(x + (u * (weight @ v)) @ part["o_dense"].T)
    return (x @ weights["weights.cls.predictions.decoder.weight"].T)[real]


def turn(x, place):
    """Even and odd dimensions of x, turned by RoPE's angles at the places."""
    angle = place[:, None] * 10_000.0 ** (-torch.arange(0, 32, 2).double() / 32)
    even, odd = x[..., ::2], x[..., 1::2]
    return even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()


def interleaved(halves):
    return torch.stack(halves, dim=-1).flatten(-2)


def with_both_faults(q, k):
    """Far keys on either side as if 7 to the left; the query's dimensions re-ordered, the key's not."""
    return torch.cat(turn(q, torch.full((48,), 7)), dim=-1) @ k.transpose(1, 2)


def without_them(q, k):
    left, right = (interleaved(turn(q, torch.full((48,), far))) @ k.transpose(1, 2) for far in (7, -7))
    place = torch.arange(48)
    return torch.where(place < place[:, None], left, right)


def test_published_rerope_is_explained_by_its_two_faults(golden, folder):
    published = golden["logits.rerope8_published"][golden["attention_mask"].bool()]
    torch.testing.assert_close(published_model(golden, with_both_faults).float(), published, atol=3e-6, rtol=0)
    # Its window of 8 lets distances grow to 7; ours is named after the largest distance.
    model = GAUAlphaForMaskedLM.from_pretrained(folder, AttentionMethod(position=ReRoPE(7, train_length=16)))
    with torch.no_grad():
        ours = model(golden["input_ids"], golden["attention_mask"])[golden["attention_mask"].bool()]
    torch.testing.assert_close(ours, published_model(golden, without_them).float(), atol=2e-5, rtol=0)
    assert (ours - published).abs().max() > 0.1
