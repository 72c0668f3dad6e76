"""Networks written by hand, as people write them for their own data."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from tests.matrix.registry import BATCH, Library, Made

OWN = Library("torch")
CLASSES = 4


def _sequence(width: int = 6, length: int = 8) -> tuple[Tensor, ...]:
    return (torch.randn(BATCH, length, width),)


def _images(channels: int = 1, size: int = 16) -> tuple[Tensor, ...]:
    return (torch.randn(BATCH, channels, size, size),)


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 10, padding_idx=0)
        settings = {"num_layers": 2, "bidirectional": True, "dropout": 0.2, "proj_size": 5}
        self.rnn = nn.LSTM(10, 12, batch_first=True, **settings)
        self.head = nn.Linear(10, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.rnn(self.words(words))[0])


@OWN.entry("recurrent", name="LSTM tagger", task="per-position", note="projections, two ways")
def tagger() -> Made:
    return Made(Tagger(), (torch.randint(1, 40, (BATCH, 8)),))


class MaskedRecurrent(nn.Module):
    """The mean over the steps that are there, instead of a packed sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 10, num_layers=2, batch_first=True, bidirectional=True, dropout=0.2)
        self.head = nn.Linear(20, CLASSES)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        states = self.rnn(x)[0] * mask.unsqueeze(-1)
        return self.head(states.sum(1) / mask.sum(1, keepdim=True).clamp(min=1))


@OWN.entry("recurrent", name="GRU with mask")
def masked_recurrent() -> Made:
    mask = torch.ones(BATCH, 8)
    mask[1, 5:] = 0
    return Made(MaskedRecurrent(), (*_sequence(), mask))


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTMCell(6, 8)
        self.second = nn.GRUCell(8, 8)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        other = x.new_zeros(x.shape[0], 8)
        for step in x.unbind(1):
            state = self.first(step, state)
            other = self.second(self.drop(state[0]), other)
        return self.head(other)


@OWN.entry("recurrent", name="cells, unrolled")
def cells() -> Made:
    return Made(Cells(), _sequence())


@OWN.entry("recurrent", name="RNN, fixed batch", training="nothing")
def plain_recurrent() -> Made:
    return Made(
        Last(nn.RNN(6, 10, 2, nonlinearity="relu", batch_first=True)), _sequence(), dynamic=False
    )


class Last(nn.Module):
    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = nn.Linear(10, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = (6, 12, 16)
        self.down = nn.ModuleList(
            [self.block(a, b) for a, b in zip((1, *widths), widths, strict=False)]
        )
        self.up = nn.ModuleList([nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(widths)])
        self.join = nn.ModuleList([self.block(2 * a, a) for a in widths[:-1]])
        self.head = nn.Conv2d(widths[0], CLASSES, 1)

    @staticmethod
    def block(width: int, out: int) -> nn.Module:
        layers = [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)]
        return nn.Sequential(*layers, nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for at, block in enumerate(self.down):
            x = block(x if at == 0 else functional.max_pool2d(x, 2))
            kept.append(x)
        for at in reversed(range(len(self.up))):
            x = self.join[at](torch.cat([kept[at], self.up[at](x)], dim=1))
        return self.head(x)


@OWN.entry("encoder and decoder", name="U-Net", task="per-position")
def unet() -> Made:
    return Made(UNet(), _images())


@OWN.entry("encoder and decoder", name="autoencoder", task="regression", training="nothing")
def autoencoder() -> Made:
    down = [nn.Conv2d(1, 8, 3, 2, 1), nn.GELU(), nn.Conv2d(8, 12, 3, 2, 1), nn.Flatten()]
    middle = [nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 192), nn.Unflatten(1, (12, 4, 4))]
    up = [nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2)]
    return Made(nn.Sequential(*down, *middle, *up, nn.Conv2d(8, 1, 3, 1, 1)), _images())


@OWN.entry("audio", name="1-D convolutions", task="multi-label")
def audio() -> Made:
    layers: list[nn.Module] = []
    for width, out in ((1, 8), (8, 12), (12, 16)):
        layers += [nn.Conv1d(width, out, 9, 4, 4), nn.BatchNorm1d(out), nn.PReLU(out)]
        layers += [nn.Dropout1d(0.1)]
    layers += [nn.AdaptiveMaxPool1d(2), nn.Flatten(), nn.Linear(32, CLASSES)]
    return Made(nn.Sequential(*layers), (torch.randn(BATCH, 1, 512),))


class Causal(nn.Module):
    """Dilated causal convolutions with gates and skips (WaveNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv1d(3, 8, 1)
        self.gates = nn.ModuleList([nn.Conv1d(8, 16, 2, dilation=d) for d in (1, 2, 4)])
        self.mixes = nn.ModuleList([nn.Conv1d(8, 8, 1) for _ in range(3)])
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        skips = torch.zeros_like(x)
        for gate, mix in zip(self.gates, self.mixes, strict=True):
            y = functional.glu(gate(functional.pad(x, (gate.dilation[0], 0))), dim=1)
            skips = skips + y
            x = x + mix(y)
        return self.head(skips[..., -1])


@OWN.entry("time series", name="dilated convolutions", task="regression", training="nothing")
def causal() -> Made:
    return Made(Causal(), (torch.randn(BATCH, 3, 20),))


class TextConvolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 12)
        self.convolutions = nn.ModuleList([nn.Conv1d(12, 8, size) for size in (2, 3, 4)])
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words).transpose(1, 2)
        pooled = [functional.relu(c(x)).amax(-1) for c in self.convolutions]
        return self.head(self.drop(torch.cat(pooled, 1)))


@OWN.entry("text convolutions", name="text CNN")
def text_convolutions() -> Made:
    return Made(TextConvolutions(), (torch.randint(1, 40, (BATCH, 9)),))


class Recommender(nn.Module):
    """Numbers, single choices and sets of choices; products of all pairs (DLRM)."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU())
        self.tables = nn.ModuleList([nn.Embedding(rows, 8) for rows in (11, 7)])
        self.bag = nn.EmbeddingBag(20, 8, mode="mean")
        self.top = nn.Sequential(nn.Linear(8 + 6, 16), nn.ReLU(), nn.Linear(16, 2))
        self.register_buffer("pairs", torch.triu_indices(4, 4, 1))

    def forward(self, numbers: Tensor, choices: Tensor, chosen: Tensor) -> Tensor:
        dense = self.bottom(numbers)
        parts = [table(choices[:, at]) for at, table in enumerate(self.tables)]
        x = torch.stack([dense, *parts, self.bag(chosen)], dim=1)
        products = torch.bmm(x, x.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([dense, products], dim=1))


@OWN.entry("tables", name="recommender", training="nothing", note="three inputs, two of ids")
def recommender() -> Made:
    choices, chosen = torch.randint(0, 7, (BATCH, 2)), torch.randint(0, 20, (BATCH, 4))
    return Made(Recommender(), (torch.randn(BATCH, 5), choices, chosen))


class FeatureTokens(nn.Module):
    """Every feature a token with weights of its own (FT-Transformer)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 12) * 0.3)
        self.bias = nn.Parameter(torch.randn(6, 12) * 0.1)
        self.cls = nn.Parameter(torch.randn(1, 1, 12) * 0.1)
        layer = nn.TransformerEncoderLayer(12, 2, 24, 0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.unsqueeze(-1) * self.weight + self.bias
        tokens = torch.cat([self.cls.expand(x.shape[0], -1, -1), tokens], dim=1)
        return self.head(self.encoder(tokens)[:, 0])


_ATTENTION_DROPOUT = "attention's own dropout is not in an evaluation export"


@OWN.entry(
    "tables",
    name="feature tokens",
    task="regression",
    training="differs",
    note=_ATTENTION_DROPOUT,
)
def feature_tokens() -> Made:
    return Made(FeatureTokens(), (torch.randn(BATCH, 6),))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(40, 12)
        layer = nn.TransformerEncoderLayer(12, 3, 24, 0.1, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, words: Tensor, padded: Tensor) -> Tensor:
        x = self.encoder(self.words(words), src_key_padding_mask=padded)
        return self.head(x.masked_fill(padded.unsqueeze(-1), 0).sum(1))


def _padded_words() -> tuple[Tensor, ...]:
    padded = torch.zeros(BATCH, 7, dtype=torch.bool)
    padded[1, 4:] = True
    return torch.randint(1, 40, (BATCH, 7)), padded


@OWN.entry("transformers", name="TransformerEncoder", training="differs", note=_ATTENTION_DROPOUT)
def encoder() -> Made:
    return Made(Encoder(), _padded_words())


@OWN.entry("transformers", name="TransformerEncoder, training export")
def encoder_in_training() -> Made:
    return Made(Encoder(), _padded_words(), training=True)


class CrossAttention(nn.Module):
    """Learned queries read a long input (Perceiver)."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, 12) * 0.2)
        self.read = nn.Linear(6, 12)
        self.cross = nn.MultiheadAttention(12, 2, batch_first=True)
        self.within = nn.MultiheadAttention(12, 3, batch_first=True, bias=False)
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(x)
        state = self.queries.expand(x.shape[0], -1, -1)
        state = self.norm(state + self.cross(state, x, x, need_weights=False)[0])
        state = state + self.within(state, state, state)[0]
        return self.head(state.mean(1))


@OWN.entry("transformers", name="cross attention", training="nothing")
def cross_attention() -> Made:
    return Made(CrossAttention(), _sequence())


class Siamese(nn.Module):
    """One network for both inputs: every weight is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
        self.project = nn.Linear(294, 10)
        self.head = nn.Linear(11, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        one, other = (self.project(self.body(x)) for x in (left, right))
        alike = functional.cosine_similarity(one, other).unsqueeze(1)
        return self.head(torch.cat([(one - other).abs(), alike], dim=1))


@OWN.entry("shared weights", name="siamese")
def siamese() -> Made:
    return Made(Siamese(), (*_images(), *_images()))


class Looped(nn.Module):
    """One block several times, and its table again as the head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 12)
        self.block = nn.Sequential(
            nn.LayerNorm(12), nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12)
        )
        self.head = nn.Linear(12, 30, bias=False)
        self.head.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words)
        for _ in range(3):
            x = x + self.block(x).cumsum(1)
        return self.head(x)


@OWN.entry(
    "shared weights",
    name="looped block",
    task="language-modelling",
    training="nothing",
    note="tied embedding",
)
def looped() -> Made:
    return Made(Looped(), (torch.randint(0, 30, (BATCH, 6)),))


@OWN.entry("re-parameterised weights", name="weight norm", training="nothing")
def weight_norm() -> Made:
    normed = parametrizations.weight_norm
    layers = [normed(nn.Conv2d(1, 6, 3, 2)), nn.ELU(), nn.Flatten(), normed(nn.Linear(294, 12))]
    return Made(nn.Sequential(*layers, nn.ELU(), nn.Linear(12, CLASSES)), _images())


@OWN.entry(
    "re-parameterised weights",
    name="spectral norm",
    training="differs",
    note="its power iteration is not in an evaluation export",
)
def spectral_norm() -> Made:
    normed = parametrizations.spectral_norm
    layers = [normed(nn.Conv2d(1, 6, 3, 2)), nn.LeakyReLU(0.2), nn.Flatten()]
    return Made(nn.Sequential(*layers, normed(nn.Linear(294, CLASSES))), _images())


@OWN.entry("norms", name="group, instance and RMS norm")
def norms() -> Made:
    layers = [nn.Conv2d(1, 8, 3, 2), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 3)]
    layers += [nn.InstanceNorm2d(8, affine=True, track_running_stats=True), nn.Mish()]
    layers += [nn.Flatten(), nn.Linear(200, 16), nn.RMSNorm(16), nn.Hardswish()]
    return Made(nn.Sequential(*layers, nn.AlphaDropout(0.2), nn.Linear(16, CLASSES)), _images())


class Precise(nn.Module):
    """A part that autocast is kept away from."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 12)
        self.inner = nn.Linear(12, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.body(x))
        with torch.autocast("cpu", enabled=False):
            x = x * torch.sigmoid(self.inner(x.float()))
        with torch.no_grad():
            scale = x.abs().amax((1, 2), keepdim=True)
        return self.head(x / (1 + scale)).mean(1)


@OWN.entry("regions", name="without autocast and gradients", training="nothing")
def precise() -> Made:
    return Made(Precise(), _sequence())


@OWN.entry("number types", name="bfloat16", training="nothing")
def half() -> Made:
    layers = [nn.Flatten(), nn.Linear(256, 24), nn.ReLU(), nn.Linear(24, CLASSES)]
    return Made(nn.Sequential(*layers).bfloat16(), (_images()[0].bfloat16(),))


class SeveralAnswers(nn.Module):
    """A dictionary of scores and features; only the scores are judged."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 8))
        self.head = nn.Linear(8, CLASSES)
        self.other = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x)
        return {"features": features, "other": self.other(features), "logits": self.head(features)}


@OWN.entry("several answers", name="dictionary of answers", note="a second head is never used")
def several() -> Made:
    return Made(SeveralAnswers(), (torch.randn(BATCH, 12),))


class Experts(nn.Module):
    """A weighted mean of experts, whose weights are one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(10, 3)
        self.experts = nn.Parameter(torch.randn(3, 10, 16) * 0.2)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gate(x).softmax(-1)
        return self.head(torch.einsum("be,bd,edh->bh", gates, x, self.experts).relu())


@OWN.entry("loose weights", name="experts", training="nothing", note="a weight of three axes")
def experts() -> Made:
    return Made(Experts(), (torch.randn(BATCH, 10),))


class Points(nn.Module):
    """The greatest of the features of unordered points (PointNet), with a learned turn."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Sequential(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.ReLU())
        self.matrix = nn.Linear(8, 9)
        self.features = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        turn = self.matrix(self.turn(x).amax(2)).view(-1, 3, 3) + torch.eye(3)
        return self.head(self.features(turn @ x).amax(2))


@OWN.entry("point clouds", name="PointNet")
def points() -> Made:
    return Made(Points(), (torch.randn(BATCH, 3, 20),))


class Graph(nn.Module):
    """Neighbours' features through a matrix of who is next to whom (GCN)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 12), nn.Linear(12, 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        edges = edges + torch.eye(edges.shape[-1])
        edges = edges / edges.sum(-1, keepdim=True)
        x = functional.relu(edges @ self.first(x))
        return self.head(functional.dropout(edges @ self.second(x), 0.2, self.training))


@OWN.entry("graphs", name="GCN, a class for every node", task="per-position")
def graph() -> Made:
    edges = (torch.rand(BATCH, 6, 6) > 0.6).float()
    return Made(Graph(), (torch.randn(BATCH, 6, 5), edges))


@OWN.entry("three axes", name="3-D convolutions")
def volumes() -> Made:
    layers = [nn.Conv3d(1, 6, 3, 2), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2)]
    layers += [nn.Dropout3d(0.2), nn.Flatten(), nn.Linear(48, CLASSES)]
    return Made(nn.Sequential(*layers), (torch.randn(BATCH, 1, 10, 10, 10),))


class PerSample(nn.Module):
    """A stored offset for each sample of the batch: no other batch makes sense."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, CLASSES))
        self.register_buffer("offset", torch.randn(BATCH, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.offset


@OWN.entry("fixed batch", name="a buffer for each sample", training="nothing", fixed=True)
def per_sample() -> Made:
    return Made(PerSample(), (torch.randn(BATCH, 8),), dynamic=False)
