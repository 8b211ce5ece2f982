"""Hugging Face folders: what config.json means, which tensors are read, and what is refused."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from strategy_cases import CASES

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM, GAUAlphaModule
from gau_alpha.checkpoints import empty_init, tensors
from gau_alpha.position import ALiBi, RoPE
from gau_alpha.scaling import InfoScale, LogLength, NoScaling, ScalableSoftmax
from gau_alpha.similarity import CosScale, DotProduct

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "attention_key_size": 8,
    "num_hidden_layers": 2,
    "initializer_range": 0.3,
}
# as transformers writes the config of the published base model
PUBLISHED = {
    **SIZES,
    "architectures": ["GAUAlphaForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "attention_scale": True,
    "classifier_dropout": 0.1,
    "embedding_size": 16,
    "gradient_checkpointing": False,
    "hidden_act": "swish",
    "hidden_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "gau_alpha",
    "normalization": "softmax_plus",
    "pad_token_id": 0,
    "torch_dtype": "float32",
    "transformers_version": "4.18.0",
    "type_vocab_size": 2,
    "use_bias": False,
}
# as the published fine-tuning script leaves it
FINE_TUNED = {
    **PUBLISHED,
    "max_position_embeddings": 64,
    "normalization": "softmax",
    "norm_method": "CosScale",
    "use_cache": False,
    "my_info_dict": {
        "task": "train",
        "dataset": "WanJuan",
        "train_len": 64,
        "train_norm_method": {"name": "CosScale", "CosScale_value": 128},
        "train_normalization": {"name": "softmax"},
    },
}


def model_of(method=None, **sizes):
    return GAUAlphaForMaskedLM(GAUAlphaConfig(**{**SIZES, **sizes}), method).eval()


@pytest.fixture
def folder(tmp_path):
    """A function that writes a folder with some fields in config.json."""

    def write(model=None, **stored):
        model = model or model_of()
        model.save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps(stored))
        return tmp_path

    return write


def logits(model):
    with torch.no_grad():
        return model(torch.arange(40).reshape(1, 40))


def stored_in(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    ("stored", "method"),
    [
        (PUBLISHED, AttentionMethod(scaling=LogLength(512))),
        (PUBLISHED | {"normalization": "softmax", "hidden_act": "silu"}, AttentionMethod()),
        (PUBLISHED | {"normalization": "softmax", "norm_method": "noCosScale"}, AttentionMethod()),
        (
            PUBLISHED | {"normalization": "InfoScale", "max_position_embeddings": 64},
            AttentionMethod(None, InfoScale(64)),
        ),
        (SIZES | {"norm_method": "CosScale", "CosScale_value": 8}, AttentionMethod(CosScale(8))),
        (FINE_TUNED, AttentionMethod(CosScale(128))),
        (FINE_TUNED | {"CosScale_value": 128}, AttentionMethod(CosScale(128))),
    ],
)
def test_published_fields_name_a_method(folder, stored, method):
    model = GAUAlphaForMaskedLM.from_pretrained(folder(**stored))
    assert model.method.describe() == method.describe()
    assert not model.training


@pytest.mark.parametrize(
    ("method", "named"),
    [
        (AttentionMethod(), {"normalization": "softmax", "norm_method": "noCosScale"}),
        (AttentionMethod(None, LogLength(512)), {"normalization": "softmax_plus", "norm_method": "noCosScale"}),
        (
            AttentionMethod(CosScale(16), InfoScale(64)),
            {
                "normalization": "InfoScale",
                "norm_method": "CosScale",
                "CosScale_value": 16,
                "max_position_embeddings": 64,
            },
        ),
        (AttentionMethod(CosScale(0.5)), {"norm_method": "CosScale", "CosScale_value": 0.5}),
        # what the published code would compute wrongly, it must not be able to start
        (AttentionMethod(position=ALiBi()), {"normalization": None}),
        (AttentionMethod(position=RoPE(500_000)), {"normalization": None}),
        (AttentionMethod(scaling=LogLength(64)), {"normalization": None}),
        (AttentionMethod(scaling=InfoScale(64, minimum=1.0)), {"normalization": None}),
    ],
)
def test_a_method_is_written_in_published_fields_where_they_can_say_it(tmp_path, method, named):
    model_of(method).save_pretrained(tmp_path)
    stored = stored_in(tmp_path)
    assert {name: stored[name] for name in named} == named
    assert ("norm_method" in stored) == (stored["normalization"] is not None or "norm_method" in named)
    assert stored["layer_norm_eps"] == 1e-12
    # also without our own entry the published fields alone lead back
    if stored["normalization"]:
        del stored["attention_method"]
        (tmp_path / "config.json").write_text(json.dumps(stored))
    assert GAUAlphaForMaskedLM.from_pretrained(tmp_path).method.describe() == method.describe()


@pytest.mark.parametrize("name", CASES)
def test_every_method_survives_a_folder(tmp_path, name):
    model = model_of(CASES[name].method)
    model.save_pretrained(tmp_path)
    again = GAUAlphaForMaskedLM.from_pretrained(tmp_path)
    assert again.method.describe() == model.method.describe()
    assert torch.equal(logits(again), logits(model))
    own, other = model.state_dict(), again.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[key], other[key]) for key in own)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"normalisation": "softmax"}, ["normalisation", "not known"]),
        ({"quantization_config": {}}, ["quantization_config"]),
        ({"normalization": "squared_relu"}, ["squared_relu", "softmax_plus", "InfoScale"]),
        ({"norm_method": "SinScale"}, ["SinScale", "noCosScale"]),
        ({"norm_method": "CosScale"}, ["CosScale", "CosScale_value", "None"]),
        ({"CosScale_value": 8}, ["CosScale_value", "8", "contradicts"]),
        ({"norm_method": "CosScale", "CosScale_value": "8"}, ["CosScale_value", "number"]),
        ({"norm_method": "CosScale", "CosScale_value": -8}, ["positive"]),
        ({"my_info_dict": {"train_normalization": {"name": "softmax"}}}, ["softmax_plus", "my_info_dict"]),
        ({"my_info_dict": {"algorithm": "PI"}}, ["algorithm", "PI"]),
        ({"my_info_dict": 3}, ["my_info_dict"]),
        ({"hidden_act": "gelu"}, ["hidden_act", "gelu", "swish"]),
        ({"attention_scale": False}, ["attention_scale"]),
        ({"model_type": "bert"}, ["model_type", "bert", "gau_alpha"]),
        ({"embedding_size": 8}, ["embedding_size", "hidden_size"]),
        ({"layer_norm_eps": 1e-5, "norm_eps": 1e-6}, ["layer_norm_eps", "norm_eps"]),
        ({"hidden_size": "16"}, ["hidden_size", "int", "'16'"]),
        ({"use_bias": 1}, ["use_bias", "bool"]),
        ({"normalization": "InfoScale", "max_position_embeddings": None}, ["InfoScale", "max_position_embeddings"]),
        ({"normalization": "InfoScale", "max_position_embeddings": "64"}, ["max_position_embeddings", "'64'"]),
        ({"attention_method": {"scaling": "gau_alpha.scaling.NoScaling"}}, ["softmax_plus", "NoScaling"]),
        ({"attention_method": {"scaling": "collections.OrderedDict"}}, ["OrderedDict"]),
        ({"attention_method": "softmaxx"}, ["attention_method", "'softmaxx'", "softmax_plus"]),
        ({"attention_method": 7}, ["attention_method", "name a preset", "7"]),
        ({"tie_word_embeddings": False}, ["missing: cls.predictions.decoder.weight"]),
        ({"num_hidden_layers": 3}, ["missing", "layer.2"]),
        ({"type_vocab_size": 3}, ["token_type_embeddings", "(2, 16)", "(3, 16)"]),
    ],
)
def test_unknown_and_contradictory_fields_are_named(folder, change, words):
    with pytest.raises(ValueError, match=words[0].replace(".", r"\.")) as caught:
        GAUAlphaForMaskedLM.from_pretrained(folder(**PUBLISHED | change))
    assert not [word for word in words if word not in str(caught.value)], caught.value


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_a_broken_config_is_named(folder, text):
    path = folder(**PUBLISHED)
    (path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json"):
        GAUAlphaForMaskedLM.from_pretrained(path)


def test_a_config_that_names_no_method_is_not_passed_over_in_silence(folder):
    with pytest.warns(UserWarning, match="normalization is missing"):
        model = GAUAlphaForMaskedLM.from_pretrained(folder(**SIZES))
    assert model.method.describe() == AttentionMethod().describe()


def test_golden_folder_round_trip_also_as_bin(golden, tmp_path):
    weights = {name.removeprefix("weights."): x for name, x in golden.items() if name.startswith("weights.")}
    sizes = {"vocab_size": 120, "hidden_size": 64, "intermediate_size": 128, "attention_key_size": 32}
    config = json.dumps({**PUBLISHED, **sizes, "embedding_size": 64, "num_hidden_layers": 3})
    real = golden["attention_mask"].bool()
    for name, save in (("model.safetensors", save_file), ("pytorch_model.bin", torch.save)):
        source, copy = tmp_path / name / "source", tmp_path / name / "copy"
        source.mkdir(parents=True)
        save(weights, source / name)
        (source / "config.json").write_text(config)
        model = GAUAlphaForMaskedLM.from_pretrained(source)
        with torch.no_grad():
            out = model(golden["input_ids"], golden["attention_mask"])
        torch.testing.assert_close(out[real], golden["logits.softmax_plus"][real], atol=2e-5, rtol=0)
        model.save_pretrained(copy)
        again = load_file(copy / "model.safetensors")
        assert again.keys() == weights.keys()
        assert all(again[key].numpy().tobytes() == weights[key].numpy().tobytes() for key in weights)


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_nothing_runs(folder, tmp_path, zipped):
    path = folder(**PUBLISHED)
    weights = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    content = {**weights, "evil": Malicious(tmp_path / "broken_in")}
    torch.save(content, path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin .*posix\.mkdir.*nothing of it was run"):
        GAUAlphaForMaskedLM.from_pretrained(path)
    assert not (tmp_path / "broken_in").exists()
    torch.save(weights, path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    GAUAlphaForMaskedLM.from_pretrained(path)  # without it the same file loads


@pytest.mark.parametrize("content", [b"", b"hello", [1, 2], {"a": 1}])
def test_a_bin_that_holds_no_weights_is_named(folder, content):
    path = folder(**PUBLISHED)
    (path / "model.safetensors").unlink()
    if isinstance(content, bytes):
        (path / "pytorch_model.bin").write_bytes(content)
    else:
        torch.save(content, path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        GAUAlphaForMaskedLM.from_pretrained(path)


def test_a_broken_safetensors_file_is_named(folder):
    path = folder(**PUBLISHED)
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read"):
        GAUAlphaForMaskedLM.from_pretrained(path)


def test_weights_in_several_pieces_are_named(folder):
    path = folder(**PUBLISHED)
    (path / "model.safetensors").rename(path / "model.safetensors.index.json")
    with pytest.raises(ValueError, match="several pieces"):
        GAUAlphaForMaskedLM.from_pretrained(path)


@pytest.fixture
def read(monkeypatch):
    """Names of the tensors that are read from safetensors files."""
    names = []
    original = tensors.safe_open

    class Recorded:
        def __init__(self, *args, **kwargs):
            self.file = original(*args, **kwargs)

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def keys(self):
            return self.file.keys()

        def get_tensor(self, name):
            names.append(name)
            return self.file.get_tensor(name)

    monkeypatch.setattr(tensors, "safe_open", Recorded)
    return names


def test_of_a_deep_checkpoint_only_the_first_layers_are_read(tmp_path, read):
    deep = model_of(AttentionMethod(None, ScalableSoftmax(train_length=16)), num_hidden_layers=24, hidden_size=64)
    for number, block in enumerate(deep.gau_alpha.encoder.blocks()):
        torch.nn.init.constant_(block.gau.method.scaling.s, number + 1.0)
    deep.save_pretrained(tmp_path)
    model = GAUAlphaForMaskedLM.from_pretrained(tmp_path, num_hidden_layers=6)
    assert {name.split(".")[3] for name in read if ".layer." in name} == {"0", "1", "2", "3", "4", "5"}
    assert len(read) == len(set(read)) == 2 + 6 * 5  # two embeddings, the head is tied; 4 weights and s per layer
    assert model.config.num_hidden_layers == 6
    own, whole = model.state_dict(), deep.state_dict()
    assert all(torch.equal(own[name], whole[name]) for name in own)
    assert [block.gau.method.scaling.s.item() for block in model.gau_alpha.encoder.blocks()] == [1, 2, 3, 4, 5, 6]
    read.clear()
    GAUAlphaForMaskedLM.from_pretrained(tmp_path)
    assert len(read) == 2 + 24 * 5
    for wrong in (0, 25):
        with pytest.raises(ValueError, match=f"num_hidden_layers is {wrong}.*1 to 24"):
            GAUAlphaForMaskedLM.from_pretrained(tmp_path, num_hidden_layers=wrong)


MEASURE = """
import re, sys
from pathlib import Path
from gau_alpha import GAUAlphaForMaskedLM
from gau_alpha.checkpoints import read_folder  # imports are no part of what is measured

def peak():
    # not getrusage: what that says is inherited from the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

layers = int(sys.argv[2])
before = peak()
model = GAUAlphaForMaskedLM.from_pretrained(sys.argv[1], num_hidden_layers=layers)
assert sum(1 for parameter in model.parameters() if parameter.sum().isfinite()) == 2 + 4 * layers  # all were read
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_loading_the_base_model_takes_little_more_memory_than_its_file(tmp_path):
    with empty_init():
        model = GAUAlphaForMaskedLM(GAUAlphaConfig(12_000))
    model.to_empty(device="cpu").tie()
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
    model.save_pretrained(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    for layers, most in ((24, 1.2 * size), (6, 0.4 * size)):
        command = [sys.executable, "-c", MEASURE, str(tmp_path), str(layers)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert 0.2 * size < int(done.stdout) < most, (layers, size)


def test_a_config_that_asks_for_fewer_layers_than_the_file_holds_gets_them_and_a_warning(folder):
    path = folder(model_of(num_hidden_layers=4), **PUBLISHED)
    with pytest.warns(UserWarning, match="holds 4 layers and config.json says 2"):
        assert GAUAlphaForMaskedLM.from_pretrained(path).config.num_hidden_layers == 2


def test_loading_draws_nothing_at_random(folder):
    path = folder(**PUBLISHED)
    before = torch.get_rng_state()
    model = GAUAlphaForMaskedLM.from_pretrained(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("tied", [True, False])
def test_tied_or_not(tmp_path, tied):
    model = model_of(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    assert ("cls.predictions.decoder.weight" in load_file(tmp_path / "model.safetensors")) != tied
    again = GAUAlphaForMaskedLM.from_pretrained(tmp_path)
    head, words = again.cls.predictions["decoder"].weight, again.gau_alpha.embeddings.word_embeddings.weight
    assert (head is words) == tied
    assert torch.equal(logits(again), logits(model))


def test_biases_are_stored_under_the_published_names(tmp_path):
    model = model_of(use_bias=True)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert "cls.predictions.bias" in weights
    assert "cls.predictions.decoder.bias" not in weights
    assert {"i_dense.bias", "o_dense.bias", "q_scaleoffset.bias", "k_scaleoffset.bias"} == {
        name.split("gau.")[1] for name in weights if ".layer.0." in name and name.endswith("bias")
    }
    assert torch.equal(logits(GAUAlphaForMaskedLM.from_pretrained(tmp_path)), logits(model))
    # files of ours from before, and files with both names
    weights["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"].clone()
    save_file(weights, tmp_path / "model.safetensors")
    assert torch.equal(logits(GAUAlphaForMaskedLM.from_pretrained(tmp_path)), logits(model))
    weights["cls.predictions.decoder.bias"] += 1
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"cls\.predictions\.bias and cls\.predictions\.decoder\.bias differ"):
        GAUAlphaForMaskedLM.from_pretrained(tmp_path)


def test_the_published_head_has_no_bias(tmp_path):
    """A published checkpoint with use_bias holds none for the head; that is a bias of zeros, not a random one."""
    model = model_of(use_bias=True)
    model.save_pretrained(tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if name.startswith("cls")]
    assert torch.equal(logits(GAUAlphaForMaskedLM.from_pretrained(tmp_path)), logits(model))


def test_a_bias_that_the_config_denies_is_left_over(folder):
    model = model_of(use_bias=True)
    with pytest.raises(ValueError, match=r"left over: .*bias"):
        GAUAlphaForMaskedLM.from_pretrained(folder(model, **PUBLISHED))


def test_half_precision_is_computed_in_float32(folder):
    path = folder(**PUBLISHED)
    weights = load_file(path / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, path / "model.safetensors")
    model = GAUAlphaForMaskedLM.from_pretrained(path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_token_types():
    model = model_of()
    ids = torch.randint(0, 50, (2, 9))
    types = torch.zeros_like(ids)
    with torch.no_grad():
        assert torch.equal(model(ids), model(ids, token_type_ids=types))
        types[1, 4:] = 1
        other = model(ids, token_type_ids=types)
        assert torch.equal(model(ids)[0], other[0])
        assert (model(ids)[1] - other[1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="token_type_ids must have shape"):
        model(ids, token_type_ids=types[:, :3])


def module(source, method=None, **sizes):
    return GAUAlphaModule(GAUAlphaConfig(**{**SIZES, **sizes}), 16, method, init_from=str(source))


def test_training_starts_from_a_folder(tmp_path):
    deep = model_of(num_hidden_layers=5)
    deep.save_pretrained(tmp_path)
    started = module(tmp_path, AttentionMethod(CosScale(8)))
    own, whole = started.model.state_dict(), deep.state_dict()
    assert own.keys() < whole.keys()
    assert all(torch.equal(own[name], whole[name]) for name in own)
    assert isinstance(started.model.method.similarity, CosScale)  # the method is the config's, not the folder's
    assert "init_from" not in started.hparams  # a checkpoint opens without the folder


def test_training_starts_from_a_checkpoint(tmp_path):
    first = GAUAlphaModule(GAUAlphaConfig(**{**SIZES, "num_hidden_layers": 3}), 16)
    content = {"state_dict": first.state_dict(), "hyper_parameters": dict(first.hparams)}
    torch.save(content, tmp_path / "first.ckpt")
    own, whole = module(tmp_path / "first.ckpt").state_dict(), first.state_dict()
    assert all(torch.equal(own[name], whole[name]) for name in own)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"hidden_size": 32}, "hidden_size is 16 there and 32 here"),
        ({"vocab_size": 51}, "vocab_size is 50 there and 51 here"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is True there and False here"),
        ({"num_hidden_layers": 9}, "num_hidden_layers is 9.*holds 2 layers"),
    ],
)
def test_a_start_of_another_size_is_named(tmp_path, sizes, words):
    model_of().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=words):
        module(tmp_path, **sizes)


def test_what_a_method_learns_starts_as_new_and_is_said_so(tmp_path):
    model_of().save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="2 of the method's tensors start as new"):
        module(tmp_path, AttentionMethod(None, ScalableSoftmax()))
    learned = model_of(AttentionMethod(None, ScalableSoftmax(train_length=16)))
    torch.nn.init.constant_(learned.gau_alpha.encoder.blocks()[1].gau.method.scaling.s, 7.0)
    learned.save_pretrained(tmp_path)
    assert (
        module(tmp_path, AttentionMethod(None, ScalableSoftmax())).model.state_dict()[
            "gau_alpha.encoder.layer.1.gau.method.scaling.s"
        ]
        == 7
    )
    with pytest.warns(UserWarning, match="2 are not used"):
        started = module(tmp_path, AttentionMethod(DotProduct(), NoScaling()))
    assert not [name for name in started.state_dict() if ".method." in name]
