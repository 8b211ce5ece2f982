"""The model agrees with the published code where that is right."""

import itertools
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from gau_alpha import AttentionMethod, GAUAlphaForMaskedLM
from gau_alpha.kernels import build_kernel
from gau_alpha.scaling import InfoScale, LogLength
from gau_alpha.similarity import CosScale

METHODS = {
    "softmax": AttentionMethod(),
    "softmax_plus": AttentionMethod(scaling=LogLength(base=512)),
    "infoscale": AttentionMethod(scaling=InfoScale(train_length=16)),
    "cosscale8": AttentionMethod(CosScale(8)),
    "cosscale8_infoscale": AttentionMethod(CosScale(8), InfoScale(train_length=16)),
    "cosscale128_infoscale": AttentionMethod(CosScale(128), InfoScale(train_length=16)),
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

    def observe(layer, weights, queries, keys, _):
        for column, query in enumerate(queries.tolist()):
            entropy[layer, query] = torch.special.entr(weights[:, column]).sum(-1)

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
