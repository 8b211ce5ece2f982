"""An exported folder opens elsewhere: in a transformers model written here from the published layout.

The classes below know the published fields and names of weights, and nothing of this package; transformers itself
reads ``config.json`` and the weights, and says what is missing and what is left over.
"""

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.scaling import InfoScale, LogLength
from gau_alpha.similarity import CosScale

METHODS = {
    "softmax": AttentionMethod(),
    "softmax_plus": AttentionMethod(scaling=LogLength(512)),
    "infoscale": AttentionMethod(scaling=InfoScale(16)),
    "cosscale": AttentionMethod(CosScale(8)),
    "cosscale_infoscale": AttentionMethod(CosScale(8), InfoScale(16)),
}


class PublishedConfig(transformers.PretrainedConfig):
    model_type = "gau_alpha"


class ScaleOffset(nn.Module):
    def __init__(self, size, offset):
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), torch.nan))
        self.bias = nn.Parameter(torch.full((size,), torch.nan)) if offset else None

    def forward(self, x):
        return x * self.weight + (0 if self.bias is None else self.bias)


class Unit(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.width, self.key = config.intermediate_size, config.attention_key_size
        bias = config.use_bias
        self.i_dense = nn.Linear(config.hidden_size, 2 * self.width + self.key, bias)
        self.o_dense = nn.Linear(self.width, config.hidden_size, bias)
        self.q_scaleoffset = ScaleOffset(self.key, bias)
        self.k_scaleoffset = ScaleOffset(self.key, bias)

    def forward(self, x, mask):
        u, v, base = F.silu(self.i_dense(x)).split([self.width, self.width, self.key], dim=-1)
        q, k = self.q_scaleoffset(base), self.k_scaleoffset(base)
        if self.config.norm_method == "CosScale":
            q = q / q.norm(dim=-1, keepdim=True) * self.config.CosScale_value * self.key**0.5
            k = k / k.norm(dim=-1, keepdim=True)
        score = self.turned(q) @ self.turned(k).transpose(1, 2) / self.key**0.5
        n = mask.sum(-1)[:, None, None].float()
        if self.config.normalization == "softmax_plus":
            score = score * n.log() / torch.tensor(512.0).log()
        elif self.config.normalization == "InfoScale":
            trained = self.config.max_position_embeddings
            score = score * (1 - n ** (-2 / self.key)).sqrt() / (1 - trained ** (-2 / self.key)) ** 0.5
        else:
            assert self.config.normalization == "softmax"
        weights = score.masked_fill(~mask[:, None].bool(), -torch.inf).softmax(-1)
        return self.o_dense(u * (weights @ v))

    def turned(self, x):
        angle = torch.arange(x.shape[1])[:, None] * 10_000.0 ** (-torch.arange(0, self.key, 2) / self.key)
        even, odd = x[..., ::2], x[..., 1::2]
        return torch.cat([even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()], dim=-1)


class Published(transformers.PreTrainedModel):
    config_class = PublishedConfig
    _tied_weights_keys = {  # noqa: RUF012
        "cls.predictions.decoder.weight": "gau_alpha.embeddings.word_embeddings.weight"
    }

    def __init__(self, config):
        super().__init__(config)
        self.eps, hidden = config.layer_norm_eps, config.hidden_size
        self.gau_alpha = nn.Module()
        self.gau_alpha.embeddings = nn.Module()
        self.gau_alpha.embeddings.word_embeddings = nn.Embedding(config.vocab_size, hidden)
        self.gau_alpha.embeddings.token_type_embeddings = nn.Embedding(config.type_vocab_size, hidden)
        self.gau_alpha.encoder = nn.Module()
        blocks = [nn.ModuleDict({"gau": Unit(config)}) for _ in range(config.num_hidden_layers)]
        self.gau_alpha.encoder.layer = nn.ModuleList(blocks)
        self.cls = nn.Module()
        self.cls.predictions = nn.Module()
        self.cls.predictions.decoder = nn.Linear(hidden, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module):
        """Whatever transformers does not find in the file shows in the logits."""
        for parameter in module.parameters(recurse=False):
            nn.init.constant_(parameter, torch.nan)

    def get_input_embeddings(self):
        return self.gau_alpha.embeddings.word_embeddings

    def norm(self, x):
        return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()

    def forward(self, ids, mask):
        parts = self.gau_alpha.embeddings
        x = self.norm(parts.word_embeddings(ids) + parts.token_type_embeddings(torch.zeros_like(ids)))
        for block in self.gau_alpha.encoder.layer:
            x = self.norm(x + block["gau"](x, mask))
        return self.cls.predictions.decoder(x)


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_an_exported_folder_opens_in_the_published_layout(tmp_path, name, tied, use_bias):
    config = GAUAlphaConfig(50, 32, 48, 16, 3, initializer_range=0.3, tie_word_embeddings=tied, use_bias=use_bias)
    ours = GAUAlphaForMaskedLM(config, METHODS[name]).eval()
    for parameter in ours.gau_alpha.encoder.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    ours.save_pretrained(tmp_path)
    theirs, report = Published.from_pretrained(tmp_path, output_loading_info=True)
    assert not [problem for problem in report.values() if problem]
    assert type(theirs.config) is PublishedConfig
    head, words = theirs.cls.predictions.decoder.weight, theirs.gau_alpha.embeddings.word_embeddings.weight
    assert (head.data_ptr() == words.data_ptr()) == tied
    ids = torch.randint(1, 50, (2, 40))
    mask = torch.ones_like(ids)
    mask[1, 30:] = 0
    with torch.no_grad():
        expected, got = theirs(ids, mask)[mask.bool()], ours(ids, mask)[mask.bool()]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_the_methods_differ():
    """Were all alike, the test above could not tell whether config.json says the right one."""
    ids, results = torch.randint(1, 50, (1, 40)), []
    for method in METHODS.values():
        torch.manual_seed(0)
        model = GAUAlphaForMaskedLM(GAUAlphaConfig(50, 32, 48, 16, 3, initializer_range=0.3), method).eval()
        with torch.no_grad():
            results.append(model(ids))
    for number, one in enumerate(results):
        assert all((one - other).abs().max() > 1e-3 for other in results[:number])


def test_transformers_reads_the_fields(tmp_path):
    GAUAlphaForMaskedLM(GAUAlphaConfig(50, 32, 48, 16, 3), METHODS["cosscale_infoscale"]).save_pretrained(tmp_path)
    config = transformers.PretrainedConfig.from_pretrained(str(tmp_path))
    assert (config.normalization, config.norm_method, config.CosScale_value) == ("InfoScale", "CosScale", 8)
    config.save_pretrained(str(tmp_path))
    again = GAUAlphaForMaskedLM.from_pretrained(tmp_path)
    assert again.method.describe() == METHODS["cosscale_infoscale"].describe()
