"""Transformers: torch's own layers, attention with masks, and what libraries write by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.engine.breadth.registry import BATCH, Family, Made

ATTENTION = Family({})
TOKENS, WIDTH, WORDS = 5, 8, 20


def words() -> Tensor:
    tokens = torch.randint(1, WORDS, (BATCH, TOKENS))
    tokens[0, 3:] = 0
    return tokens


class Encoder(nn.Module):
    def __init__(self, *, norm_first: bool, batch_first: bool, activation: str) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(1, TOKENS, WIDTH))
        layer = nn.TransformerEncoderLayer(
            *(WIDTH, 2, 16, 0.1, activation),
            batch_first=batch_first,
            norm_first=norm_first,
        )
        self.encoder = nn.TransformerEncoder(
            layer, 2, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False
        )
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) * math.sqrt(WIDTH) + self.positions
        padding = tokens == 0
        if not self.batch_first:
            x = x.transpose(0, 1)
        x = self.encoder(x, src_key_padding_mask=padding)
        if not self.batch_first:
            x = x.transpose(0, 1)
        return self.head(x[:, 0])


@ATTENTION.register
def encoder() -> Made:
    return Encoder(norm_first=False, batch_first=True, activation="relu"), (words(),)


@ATTENTION.register
def encoder_norm_first() -> Made:
    return Encoder(norm_first=True, batch_first=False, activation="gelu"), (words(),)


class Seq2Seq(nn.Module):
    """nn.Transformer with a causal mask for the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Embedding(WORDS, WIDTH)
        self.target = nn.Embedding(WORDS, WIDTH)
        self.transformer = nn.Transformer(WIDTH, 2, 1, 1, 16, 0.1, batch_first=True)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        x = self.transformer(
            self.source(source), self.target(target), tgt_mask=mask, tgt_is_causal=True
        )
        return self.head(x[:, -1])


@ATTENTION.register
def seq2seq() -> Made:
    return Seq2Seq(), (words(), words()[:, :4])


class MultiHead(nn.Module):
    """Self attention, then attention to something of other widths, with weights averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(WIDTH, 2, dropout=0.1, batch_first=True)
        self.cross = nn.MultiheadAttention(WIDTH, 4, kdim=6, vdim=3, bias=False)
        self.extra = nn.MultiheadAttention(WIDTH, 2, add_bias_kv=True, batch_first=True)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH + TOKENS, 3)

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        x = x + self.own(x, x, x, need_weights=False)[0]
        x = self.norm(x).transpose(0, 1)
        y, weights = self.cross(x, key.transpose(0, 1), value.transpose(0, 1))
        y = y.transpose(0, 1)
        y = y + self.extra(y, y, y, need_weights=False)[0]
        return self.head(torch.cat([y.mean(1), weights.mean(2)], dim=1))


@ATTENTION.register
def multi_head() -> Made:
    shapes = ((BATCH, TOKENS, WIDTH), (BATCH, 7, 6), (BATCH, 7, 3))
    return MultiHead(), tuple(torch.randn(shape) for shape in shapes)


class Causal(nn.Module):
    """A small GPT: weights as Conv1D keeps them ([in, out]), a causal buffer, tied words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Embedding(TOKENS, WIDTH)
        self.weight = nn.Parameter(torch.randn(WIDTH, 3 * WIDTH) * 0.3)
        self.bias = nn.Parameter(torch.randn(3 * WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.register_buffer(
            "causal", torch.tril(torch.ones(TOKENS, TOKENS, dtype=torch.bool))[None, None]
        )
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        length = tokens.shape[1]
        x = self.words(tokens) + self.places(torch.arange(length, device=tokens.device))
        flat = torch.addmm(self.bias, self.norm(x).view(-1, WIDTH), self.weight)
        parts = flat.view(*x.shape[:-1], 3 * WIDTH).split(WIDTH, dim=2)
        query, key, value = (p.view(-1, length, 2, WIDTH // 2).transpose(1, 2) for p in parts)
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(WIDTH // 2)
        scores = torch.where(
            self.causal[:, :, :length, :length], scores, torch.finfo(scores.dtype).min
        )
        allowed = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -10000.0
        attended = functional.dropout(torch.softmax(scores + allowed, -1), 0.1, self.training)
        x = x + (attended @ value).transpose(1, 2).flatten(2)
        return {"last_hidden_state": x, "logits": self.head(x)}


@ATTENTION.register
def causal() -> Made:
    return Causal(), (words(), torch.ones(BATCH, TOKENS, dtype=torch.int64))


class Rotary(nn.Module):
    """Grouped queries, rotary positions computed without gradients and autocast, RMS norms."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key = nn.Linear(WIDTH, WIDTH // 2, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH // 2, bias=False)
        self.gate = nn.Linear(WIDTH, 16, bias=False)
        self.up = nn.Linear(WIDTH, 16, bias=False)
        self.down = nn.Linear(16, WIDTH, bias=False)
        self.scale = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.register_buffer("frequencies", 1.0 / 100 ** (torch.arange(0, 4, 2) / 4), False)
        self.head = nn.Linear(WIDTH, 3)

    def norm(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.scale * wide.to(x.dtype)

    @torch.no_grad()
    def angles(self, x: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(x.shape[1])[None]
        inverse = self.frequencies[None, :, None].float().expand(places.shape[0], -1, 1)
        with torch.autocast(device_type="cpu", enabled=False):
            turns = (inverse @ places[:, None, :].float()).transpose(1, 2)
            both = torch.cat((turns, turns), dim=-1)
            return both.cos().to(x.dtype), both.sin().to(x.dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        cos, sin = (angle.unsqueeze(1) for angle in self.angles(x))
        normed = self.norm(x)
        query, key, value = (
            part(normed).view(*x.shape[:2], -1, 4).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )

        def turn(t: Tensor) -> Tensor:
            half = t.shape[-1] // 2
            return t * cos + torch.cat((-t[..., half:], t[..., :half]), dim=-1) * sin

        query, key = turn(query), turn(key)
        key = key[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2)
        value = value[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2)
        x = x + functional.scaled_dot_product_attention(
            query, key, value, is_causal=True
        ).transpose(1, 2).reshape(*x.shape)
        normed = self.norm(x)
        x = x + self.down(functional.silu(self.gate(normed)) * self.up(normed))
        return self.head(self.norm(x)[:, -1])


@ATTENTION.register
def rotary() -> Made:
    return Rotary(), (words(),)


class Relative(nn.Module):
    """Position biases by buckets, as T5; window attention with a table, as Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.buckets = nn.Embedding(6, 2)
        self.table = nn.Parameter(torch.randn(2 * TOKENS - 1, 2))
        places = torch.arange(TOKENS)
        self.register_buffer("index", (places[:, None] - places[None] + TOKENS - 1).view(-1))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def bias(self, length: int) -> Tensor:
        apart = torch.arange(length)[None, :] - torch.arange(length)[:, None]
        bucket = (apart > 0).to(torch.long) * 3
        apart = torch.abs(apart)
        far = 1 + (torch.log(apart.float() / 1) / math.log(4) * 2).to(torch.long)
        far = torch.min(far, torch.full_like(far, 2))
        return self.buckets(bucket + torch.where(apart < 1, apart, far)).permute(2, 0, 1)[None]

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length = tokens.shape
        x = self.words(tokens)
        query, key, value = (
            self.qkv(x).view(batch, length, 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4).unbind(0)
        )
        local = self.table[self.index].view(TOKENS, TOKENS, -1).permute(2, 0, 1).contiguous()
        mask = self.bias(length) + local.unsqueeze(0)
        mask = mask.masked_fill((tokens == 0)[:, None, None, :], float("-inf"))
        x = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.head(x.transpose(1, 2).reshape(batch, length, WIDTH).mean(1))


@ATTENTION.register
def relative() -> Made:
    return Relative(), (words(),)


class Indexed(nn.Module):
    """The mask and the last real token are picked by the numbers of the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        batch, length = tokens.shape
        samples, places = torch.arange(batch), torch.arange(length)
        allowed = mask.bool()[samples[:, None, None, None], places[None, None, None, :]]
        allowed = allowed.expand(batch, -1, length, length)
        x = self.words(tokens)
        heads = x.view(batch, length, 2, -1).transpose(1, 2)
        x = functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=allowed)
        x = self.mix(x.transpose(1, 2).reshape(batch, length, -1))
        last = (places * (tokens != 0).to(torch.int32)).argmax(-1)
        return self.head(x)[torch.arange(batch), last]


@ATTENTION.register
def indexed() -> Made:
    tokens = words()
    return Indexed(), (tokens, (tokens != 0).to(torch.int64))
