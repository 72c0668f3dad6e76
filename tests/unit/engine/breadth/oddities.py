"""Feed-forward networks with the less usual layers, paddings, poolings and parametrisations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from tests.unit.engine.breadth.registry import BATCH, Family, Head, Made

ODDITIES = Family({})


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def image(channels: int = 2, size: int = 8) -> tuple[Tensor, ...]:
    return (torch.randn(BATCH, channels, size, size),)


def pooled(*layers: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))


@ODDITIES.register
def channels_last() -> Made:
    net = pooled(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), width=8)
    return net.to(memory_format=torch.channels_last), image(3)


@ODDITIES.register
def padding_modes() -> Made:
    layers = [
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same", dilation=2, padding_mode="circular"),
        nn.Conv2d(4, 4, (3, 5), padding=(1, 2), padding_mode="replicate"),
        nn.Conv2d(4, 4, 3, padding="valid"),
        nn.ZeroPad2d(1),
        nn.ConstantPad2d((1, 0, 0, 1), 0.5),
        nn.ReplicationPad2d(1),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, dilation=2),
    ]
    return pooled(*layers, width=6), image()


@ODDITIES.register
def weight_normed() -> Made:
    body = nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.Tanh(), weight_norm(nn.Linear(8, 8)))
    return Head(body, 8), (torch.randn(BATCH, 6),)


@ODDITIES.register
def spectral_normed() -> Made:
    conv = spectral_norm(nn.Conv2d(2, 6, 3), n_power_iterations=2)
    net = pooled(conv, nn.LeakyReLU(0.2), spectral_norm(nn.Conv2d(6, 6, 3)), width=6)
    return net, image()


@ODDITIES.register
def orthogonal() -> Made:
    class Symmetric(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.triu() + x.triu(1).transpose(-1, -2)

    layer = nn.Linear(6, 6)
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
    return Head(layer, 6), (torch.randn(BATCH, 6),)


@ODDITIES.register
def old_norms() -> Made:
    body = nn.Sequential(
        nn.utils.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.utils.spectral_norm(nn.Linear(8, 8))
    )
    return Head(body, 8), (torch.randn(BATCH, 6),)


@ODDITIES.register
def lazy() -> Made:
    net = nn.Sequential(
        nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)
    )
    net(torch.zeros(2, 2, 8, 8))
    return net, image()


class Bags(nn.Module):
    """A table model: bags of categories, one embedding each, and their products."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList(
            [nn.EmbeddingBag(10, 4, mode=mode) for mode in ("sum", "mean", "max")]
        )
        self.single = nn.Embedding(10, 4, max_norm=None, scale_grad_by_freq=True)
        self.bottom = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True))
        self.top = nn.Linear(10 + 4, 3)

    def forward(self, table: Tensor, categories: Tensor) -> Tensor:
        x = self.bottom(table)
        every = [bag(categories) for bag in self.bags] + [self.single(categories[:, 0]), x]
        stacked = torch.stack(every, dim=1)
        products = torch.bmm(stacked, stacked.transpose(1, 2))
        rows, columns = torch.tril_indices(5, 5, -1)
        return self.top(torch.cat([x, products[:, rows, columns]], dim=1))


@ODDITIES.register
def bags() -> Made:
    return Bags(), (torch.randn(BATCH, 5), torch.randint(0, 10, (BATCH, 3)))


@ODDITIES.register
def resampling() -> Made:
    layers = [
        nn.Conv2d(2, 8, 3, padding=1),
        nn.PixelShuffle(2),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.Upsample(size=(9, 11), mode="bicubic"),
        nn.Upsample(scale_factor=1.5, mode="nearest"),
        nn.PixelUnshuffle(1),
        nn.UpsamplingBilinear2d(scale_factor=2),
        Apply(lambda x: functional.interpolate(x, size=(12, 12), mode="area")),
        Apply(lambda x: functional.interpolate(x, scale_factor=0.5, mode="nearest-exact")),
        Apply(lambda x: functional.interpolate(x, (5, 5), mode="bilinear", antialias=True)),
        nn.ChannelShuffle(2),
    ]
    return pooled(*layers, width=2), image()


class Pools(nn.Module):
    """Pooling with indices, unpooling, and every other pool."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.max = nn.MaxPool2d(2, return_indices=True)
        self.adaptive = nn.AdaptiveMaxPool2d(3, return_indices=True)
        self.lp = nn.LPPool2d(2, 2, ceil_mode=True)
        self.average = nn.AvgPool2d(2, 1, ceil_mode=True, count_include_pad=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        small, places = self.max(x)
        top, where = self.adaptive(x)
        x = top * (where % 2).to(x.dtype) + self.adaptive(small)[0] + self.average(self.lp(x))
        return self.head(x.flatten(2).amax(-1) + places.float().mean((2, 3)))


@ODDITIES.register
def pools() -> Made:
    return Pools(), image()


@ODDITIES.register
def activations() -> Made:
    layers: list[nn.Module] = [nn.Linear(6, 8)]
    layers += [nn.CELU(), nn.SELU(True), nn.Softsign(), nn.Tanhshrink(), nn.Hardshrink(0.01)]
    layers += [nn.Softshrink(0.01), nn.LogSigmoid(), nn.Mish(), nn.Hardtanh(-2, 2, True)]
    layers += [nn.Threshold(-1.0, 0.1), nn.RReLU(), nn.PReLU(), nn.ELU(inplace=True), nn.GLU()]
    layers += [nn.SiLU(True), nn.Hardsigmoid(), nn.Softmin(-1), nn.GELU("tanh")]
    layers += [nn.Dropout(0.2, inplace=True), nn.FeatureAlphaDropout(0.1), nn.Linear(4, 4)]
    return nn.Sequential(*layers, nn.LogSoftmax(dim=-1)), (torch.randn(BATCH, 6),)


@ODDITIES.register
def log_probabilities() -> Made:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(108, 4), nn.Softmax(dim=1))
    return net, image()


class Rearranged(nn.Module):
    """What einops and einsum become, and lists and dictionaries of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.list = nn.ParameterList([torch.randn(4, 4) for _ in range(2)])
        self.dict = nn.ParameterDict({"odd key": torch.randn(4, 4), "gain": torch.rand(4)})
        self.layers = nn.ModuleDict({"a b": nn.Linear(4, 4), "c-d/e": nn.LayerNorm(4)})
        self.register_buffer("constant", torch.randn(4))
        self.unused = nn.Linear(3, 3)
        self.shared = self.layers["a b"]
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        x = x.reshape(batch, 8, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        x = x.reshape(batch, -1, 4)
        x = torch.einsum("bnc,cd,de->bne", x, self.list[0], self.list[1])
        x = self.shared(self.layers["c-d/e"](self.layers["a b"](x)))
        x = (x @ self.dict["odd key"]) * self.dict["gain"] + self.constant
        left, middle, right = torch.split(x, [1, 2, 1], dim=2)
        one, two = x.unsqueeze(1).squeeze(1).chunk(2, dim=-1)
        x = torch.cat([left, middle, right, one.roll(1, 1), two.flip(2)], dim=-1)
        return self.head(x.unflatten(1, (2, -1)).movedim(1, 2).mean(dim=(1, 2)))


@ODDITIES.register
def rearranged() -> Made:
    return Rearranged(), image(8)


@ODDITIES.register
def double_precision() -> Made:
    net = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 4))
    return net.double(), (torch.randn(BATCH, 6).double(),)


@ODDITIES.register
def half_precision() -> Made:
    net = pooled(nn.Conv2d(2, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), width=8)
    return net.half(), (image()[0].half(),)


class NormsOfTwoAxes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm([4, 6])
        self.rms = nn.RMSNorm([4, 6])
        self.local = nn.LocalResponseNorm(2)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.local(self.rms(self.norm(x)).unsqueeze(1)).squeeze(1)
        return self.head(functional.normalize(x, dim=-1)).mean(1)


@ODDITIES.register
def norms_of_two_axes() -> Made:
    return NormsOfTwoAxes(), (torch.randn(BATCH, 4, 6),)


class Distances(nn.Module):
    """Prototypes compared by cosine and by distance; a bilinear form between two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(4, 6))
        self.form = nn.Bilinear(3, 3, 4, bias=False)
        self.embed = parametrizations.weight_norm(nn.Conv1d(1, 6, 3), dim=0)

    def forward(self, x: Tensor) -> Tensor:
        far = -torch.cdist(x, self.prototypes)
        near = functional.cosine_similarity(x.unsqueeze(1), self.prototypes.unsqueeze(0), dim=-1)
        wave = self.embed(x.unsqueeze(1)).amax(-1)
        return far + near + self.form(x[:, :3], x[:, 3:]) + functional.linear(wave, self.prototypes)


@ODDITIES.register
def distances() -> Made:
    return Distances(), (torch.randn(BATCH, 6),)


class Spectral(nn.Module):
    """Mixing of tokens in the frequency domain, and rotary positions as complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(5, 4, 2) * 0.3)
        turns = torch.outer(torch.arange(8.0), torch.tensor([1.0, 0.1]))
        self.register_buffer("turns", torch.polar(torch.ones_like(turns), turns), persistent=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        x = torch.view_as_real(pairs * self.turns).flatten(2)
        mixed = torch.fft.rfft(x, dim=1, norm="ortho") * torch.view_as_complex(self.filter)
        x = torch.fft.irfft(mixed, n=x.shape[1], dim=1, norm="ortho")
        return self.head(torch.clip(x, -3, 3).mean(1) + torch.fft.fft2(x).real.amax(1))


@ODDITIES.register
def spectral() -> Made:
    return Spectral(), (torch.randn(BATCH, 8, 4),)


class Block(nn.Module):
    """The block of Liu et al. (2022): depthwise, channels last, scaled, and dropped by the row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * width)
        self.reduce = nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.reduce(functional.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


@ODDITIES.register
def convnext() -> Made:
    stem = nn.Conv2d(3, 8, 2, 2)
    return pooled(stem, nn.GroupNorm(1, 8), Block(8), Block(8), width=8), image(3)
