"""What ours is compared with: the published GAU-α written down plainly, and a BERT of as many parameters.

Both are what one would write first: logits of every position, all scores at once, rotations by stacked sines and
cosines, torch's default AdamW. ``PlainGAU`` has the parameter names of ours, so one state dict serves both, and
``test_baseline_model.py`` holds that both compute the same.

B batch, L length, D key size, E value width, H hidden size, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def plain_norm(x: Tensor, eps: float = 1e-12) -> Tensor:
    return x / torch.sqrt(torch.mean(torch.square(x), dim=-1, keepdim=True) + eps)


def plain_rotate(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]  # (B, L, D/2)
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)  # (B, L, D)


class Scale(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class PlainUnit(nn.Module):
    def __init__(self, hidden: int, width: int, key_size: int, dropout: float) -> None:
        super().__init__()
        self.sizes, self.dropout = [width, width, key_size], dropout
        self.i_dense = nn.Linear(hidden, 2 * width + key_size, bias=False)
        self.q_scaleoffset, self.k_scaleoffset = Scale(key_size), Scale(key_size)
        self.o_dense = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor, sin: Tensor, cos: Tensor, hidden_keys: Tensor) -> Tensor:
        u, v, base = F.silu(self.i_dense(x)).split(self.sizes, dim=-1)
        query = plain_rotate(self.q_scaleoffset(base), sin, cos)
        key = plain_rotate(self.k_scaleoffset(base), sin, cos)
        scores = torch.einsum("bmd,bnd->bmn", query, key) / base.shape[-1] ** 0.5  # (B, L, L)
        weights = torch.softmax(scores + hidden_keys, dim=-1)
        weights = F.dropout(weights, self.dropout, self.training)
        return self.o_dense(u * torch.einsum("bmn,bne->bme", weights, v))


class PlainBlock(nn.Module):
    def __init__(self, *sizes: int, dropout: float) -> None:
        super().__init__()
        self.gau, self.dropout = PlainUnit(*sizes, dropout), nn.Dropout(dropout)

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        return plain_norm(x + self.dropout(self.gau(x, *rest)))


class PlainGAU(nn.Module):
    """GAU-α with dot-product attention and RoPE. ``forward`` gives logits (B, L, V) of every position."""

    def __init__(
        self, vocab_size: int, hidden: int = 768, width: int = 1536, key_size: int = 128, layers: int = 6,
        dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.key_size = key_size
        embeddings = {
            "word_embeddings": nn.Embedding(vocab_size, hidden),
            "token_type_embeddings": nn.Embedding(2, hidden),
        }
        blocks = [PlainBlock(hidden, width, key_size, dropout=dropout) for _ in range(layers)]
        encoder = nn.ModuleDict({"layer": nn.ModuleList(blocks)})
        self.gau_alpha = nn.ModuleDict({"embeddings": nn.ModuleDict(embeddings), "encoder": encoder})
        self.dropout = nn.Dropout(dropout)
        decoder = nn.Linear(hidden, vocab_size, bias=False)
        self.cls = nn.ModuleDict({"predictions": nn.ModuleDict({"decoder": decoder})})
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
        decoder.weight = self.gau_alpha["embeddings"]["word_embeddings"].weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        tables = self.gau_alpha["embeddings"]
        kinds = tables["token_type_embeddings"](torch.zeros_like(input_ids))
        x = self.dropout(plain_norm(tables["word_embeddings"](input_ids) + kinds))  # (B, L, H)
        pair = torch.arange(0, self.key_size, 2, device=x.device)
        angle = torch.arange(x.shape[1], device=x.device)[:, None] * 10_000.0 ** (-pair / self.key_size)  # (L, D/2)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden_keys = (1.0 - mask[:, None, :].to(x.dtype)) * -1e12  # (B, 1, L)
        for block in self.gau_alpha["encoder"]["layer"]:
            x = block(x, angle.sin(), angle.cos(), hidden_keys)
        return self.cls["predictions"]["decoder"](x)  # (B, L, V)


class PlainBERT(nn.Module):
    """Torch's own encoder, BERT's widths, logits (B, L, V) of every position.

    A GAU has 3.64 million parameters at the base model's sizes and a BERT layer 7.09, so 3 stand for 6.
    """

    def __init__(
        self, vocab_size: int, hidden: int = 768, layers: int = 3, max_length: int = 512, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(vocab_size, hidden), nn.Embedding(max_length, hidden)
        layer = nn.TransformerEncoderLayer(hidden, 12, 4 * hidden, dropout, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.decoder = nn.Linear(hidden, vocab_size, bias=False)
        self.decoder.weight = self.words.weight
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.words(input_ids) + self.positions.weight[: input_ids.shape[1]]
        return self.decoder(self.encoder(x))


def plain_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean loss at the targets, from logits of every position."""
    logits = model(batch["input_ids"], batch["attention_mask"])
    return F.cross_entropy(logits.flatten(0, 1).float(), batch["labels"].flatten(), ignore_index=-100)


def plain_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], dtype: torch.dtype
) -> None:
    """One optimizer step."""
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        loss = plain_loss(model, batch)
    loss.backward()
    optimizer.step()
