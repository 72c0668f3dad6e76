"""A zoo of small networks with random weights, one of each kind that has to work.

Every function returns `(network, example_inputs)` with a batch of three samples, the network in
evaluation mode and its batch statistics filled with something that is neither 0 nor 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Made = tuple[nn.Module, tuple[Tensor, ...]]
BATCH = 3
ZOO: dict[str, Callable[[], Made]] = {}


def network(make: Callable[[], Made]) -> Callable[[], Made]:
    """Seeds the weights, fills running statistics and registers the network under its name."""

    def seeded() -> Made:
        torch.manual_seed(0)
        net, inputs = make()
        with torch.no_grad():
            for name, buffer in net.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_(0, 0.3)
                elif name.endswith("running_var"):
                    buffer.uniform_(0.5, 1.5)
                elif name.endswith("num_batches_tracked"):
                    buffer.fill_(7)
            for module in net.modules():
                weight = getattr(module, "weight", None)
                if isinstance(weight, nn.Parameter) and weight.dim() == 1:
                    weight.uniform_(0.5, 1.5)
        return net.eval(), inputs

    seeded.__name__ = make.__name__
    ZOO[make.__name__] = seeded
    return seeded


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class BasicBlock(nn.Module):
    """The block of He et al. (2016) for CIFAR, with shortcut option A (pad) or B (project)."""

    def __init__(self, inputs: int, outputs: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or inputs != outputs:
            extra = (outputs - inputs) // 2
            if option == "A":
                self.shortcut = Lambda(
                    lambda x: functional.pad(
                        x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra), "constant", 0
                    )
                )
            else:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return functional.relu(out)


class ResNet(nn.Module):
    def __init__(self, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(BasicBlock(8, 8, 1, option), BasicBlock(8, 8, 1, option))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2, option), BasicBlock(16, 16, 1, option))
        self.linear = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer2(self.layer1(out))
        out = functional.avg_pool2d(out, out.size()[3])
        out = out.view(out.size(0), -1)
        return self.linear(out)


@network
def resnet_a() -> Made:
    return ResNet("A"), (torch.randn(BATCH, 3, 12, 12),)


@network
def resnet_b() -> Made:
    return ResNet("B"), (torch.randn(BATCH, 3, 12, 12),)


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, channels // 2, 1)
        self.fc2 = nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = functional.relu(self.fc1(self.pool(x)), inplace=True)
        return x * functional.hardsigmoid(self.fc2(scale))


class Inverted(nn.Module):
    def __init__(self, channels: int, expanded: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, expanded, 1, bias=False),
            nn.BatchNorm2d(expanded, eps=0.001, momentum=0.01),
            nn.Hardswish(inplace=True),
            nn.Conv2d(expanded, expanded, 3, padding=1, groups=expanded, bias=False),
            nn.BatchNorm2d(expanded),
            nn.ReLU6(inplace=True),
            SqueezeExcitation(expanded),
            nn.Conv2d(expanded, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


@network
def mobilenet() -> Made:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        Inverted(8, 16),
        Inverted(8, 12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8, 5),
    )
    return net, (torch.randn(BATCH, 3, 10, 10),)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(True))
        self.down2 = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True))
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.up_grouped = nn.ConvTranspose2d(8, 8, 3, 2, 1, output_padding=1, groups=4, bias=False)
        self.merge = nn.Conv2d(12, 4, 3, padding="same", padding_mode="reflect")
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        smooth = functional.interpolate(first, scale_factor=0.5, mode="bilinear")
        second = second + torch.cat([smooth, smooth], dim=1)
        raised = torch.cat([self.up(second), self.up_grouped(second)], dim=1)
        merged = functional.relu(self.merge(raised)) + first
        return self.head(merged).mean(dim=(2, 3))


@network
def unet() -> Made:
    return UNet(), (torch.randn(BATCH, 1, 8, 8),)


class Conv1dNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, 6, 5, stride=2, padding=2)
        self.conv2 = nn.Conv1d(6, 6, 3, dilation=2, padding="same")
        self.norm = nn.BatchNorm1d(6)
        self.pool = nn.MaxPool1d(2)
        self.act = nn.PReLU(6)
        self.up = nn.ConvTranspose1d(6, 4, 3)
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1)
        x = self.act(self.norm(self.conv2(functional.elu(self.conv1(x)))))
        x = self.up(self.pool(x))
        return self.fc(functional.adaptive_max_pool1d(x, 1).squeeze(-1))


@network
def conv1d() -> Made:
    return Conv1dNet(), (torch.randn(BATCH, 40),)


@network
def conv3d() -> Made:
    net = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.BatchNorm3d(4),
        nn.LeakyReLU(0.1),
        nn.MaxPool3d(2),
        nn.ConvTranspose3d(4, 3, 2, bias=False),
        nn.InstanceNorm3d(3, affine=True),
        nn.AdaptiveAvgPool3d((1, 1, 2)),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(6, 4),
    )
    return net, (torch.randn(BATCH, 1, 6, 6, 8),)


@network
def mlp() -> Made:
    net = nn.Sequential(
        nn.Linear(12, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(16, 16, bias=False),
        nn.BatchNorm1d(16, affine=False),
        nn.GELU(),
        nn.AlphaDropout(0.1),
        nn.Linear(16, 4),
    )
    return net, (torch.randn(BATCH, 12),)


class MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 8), nn.GELU(), nn.Linear(8, tokens))
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.channels = nn.Sequential(nn.Linear(width, 16), nn.SiLU(), nn.Linear(16, width))
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.scale * self.channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.ModuleList([MixerBlock(9, 8) for _ in range(2)])
        self.norm = nn.RMSNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


@network
def mixer() -> Made:
    return Mixer(), (torch.randn(BATCH, 3, 12, 12),)


class TextClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 8, padding_idx=0)
        self.positions = nn.Embedding(6, 8)
        self.register_buffer("order", torch.arange(6), persistent=False)
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(8, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = (tokens != 0).unsqueeze(-1)
        x = self.words(tokens) + self.positions(self.order)
        x = self.drop(self.norm(x)).masked_fill(~mask, 0.0)
        return self.head(x.sum(dim=1) / mask.sum(dim=1).clamp(min=1))


@network
def embedding() -> Made:
    tokens = torch.randint(1, 30, (BATCH, 6))
    tokens[0, 4:] = 0
    return TextClassifier(), (tokens,)


class Tied(nn.Module):
    """Input and output embedding tied; one layer under two names; a layer nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.first = nn.Linear(8, 8)
        self.unused = nn.Linear(8, 3)
        self.decode = nn.Linear(8, 20)
        self.decode.weight = self.embed.weight
        self.second = self.first
        self.last = nn.Linear(8, 8, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = functional.relu(self.first(self.embed(tokens)))
        x = self.last(functional.relu(self.second(x)))
        return self.decode(x).mean(dim=1)


@network
def tied() -> Made:
    return Tied(), (torch.randint(0, 20, (BATCH, 5)),)


@network
def group_and_instance_norm() -> Made:
    net = nn.Sequential(
        nn.Conv2d(2, 8, 3),
        nn.GroupNorm(4, 8),
        nn.Tanh(),
        nn.Conv2d(8, 6, 3, groups=2),
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
        nn.Softplus(),
        nn.InstanceNorm2d(6),
        nn.Dropout2d(0.25),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(3),
    )
    net(torch.zeros(2, 2, 8, 8))
    return net, (torch.randn(BATCH, 2, 8, 8),)


class Functional(nn.Module):
    """Parameters used directly, one conv weight standardised on the way, dropout as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 3, 3, 3) * 0.2)
        self.b = nn.Parameter(torch.randn(6))
        self.std = nn.Conv2d(6, 6, 3, padding=1)
        self.gain = nn.Parameter(torch.rand(6, 1, 1))
        self.register_buffer("offset", torch.tensor([0.1]))
        self.register_buffer("hidden_offset", torch.tensor([0.2]), persistent=False)
        self.head = nn.ParameterDict({"w": torch.randn(4, 6), "b": torch.randn(4)})

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(x, self.w, self.b, stride=2)
        x = functional.dropout2d(x, 0.1, self.training) * self.gain
        weight = self.std.weight
        weight = (weight - weight.mean(dim=(1, 2, 3), keepdim=True)) / weight.std()
        x = functional.relu(functional.conv2d(x, weight, self.std.bias, padding=1))
        x = x.mean(dim=(2, 3)) + self.offset + self.hidden_offset + torch.tensor([0.3])
        x = functional.dropout(x, 0.2, self.training)
        return functional.linear(x, self.head["w"], self.head["b"])


@network
def functional_parameters() -> Made:
    return Functional(), (torch.randn(BATCH, 3, 9, 9),)


class Reused(nn.Module):
    """One layer called twice; one weight used with two different strides."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Linear(6, 6))
        self.conv = nn.Conv1d(1, 3, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.body(x)).unsqueeze(1)
        fine = self.conv(x).mean(dim=-1)
        coarse = functional.conv1d(x, self.conv.weight, self.conv.bias, stride=2).mean(dim=-1)
        return self.head(fine + coarse)


@network
def reused() -> Made:
    return Reused(), (torch.randn(BATCH, 6),)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=0.1 if self.training else 0.0
        )
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, width))


class VisionTransformer(nn.Module):
    """Class token, positions, pre-norm blocks, as in Dosovitskiy et al. (2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 10, 8) * 0.1)
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.norm1 = nn.LayerNorm(8)
        self.attention = Attention(8, 2)
        self.norm2 = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


@network
def vision_transformer() -> Made:
    return VisionTransformer(), (torch.randn(BATCH, 3, 12, 12),)


@network
def torch_transformer() -> Made:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    net = nn.Sequential(
        nn.Linear(4, 8),
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        nn.Flatten(),
        nn.Linear(40, 3),
    )
    return net, (torch.randn(BATCH, 5, 4),)


class Shuffle(nn.Module):
    """Pixel shuffle, channel shuffle by hand, chunk and cat, paddings, einsum and matmul."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.conv = nn.Conv2d(2, 8, 3, groups=2)
        self.up = nn.PixelShuffle(2)
        self.mix = nn.Parameter(torch.randn(2, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.pad(x))
        batch, channels, height, width = x.size()
        x = x.view(batch, 2, channels // 2, height, width)
        x = x.transpose(1, 2).contiguous().view(batch, channels, height, width)
        left, right = x.chunk(2, dim=1)
        x = self.up(torch.cat([left.sigmoid() * right, left], dim=1))
        x = functional.pad(x, (0, 1, 1, 0))
        pooled = functional.adaptive_avg_pool2d(x, (3, 3)).flatten(2)
        mixed = torch.einsum("bcl,cd->bdl", pooled, self.mix)
        affinity = torch.matmul(mixed, mixed.transpose(1, 2)).softmax(dim=-1)
        return self.head((affinity @ mixed).amax(dim=-1))


@network
def shuffle() -> Made:
    return Shuffle(), (torch.randn(BATCH, 2, 6, 6),)


class InPlace(nn.Module):
    """Writes in place in the ways that networks in the wild do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 8)
        self.fc2 = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.fc1(x)
        view = first.view(-1, 2, 4)
        first.relu_()
        second = self.fc2(view.flatten(1)).clone()
        second[:, 2:4] = first[:, :2]
        second[:, 5] *= 2
        second += first
        second.clamp_(-3, 3).mul_(0.5)
        return self.head(second)


@network
def in_place() -> Made:
    return InPlace(), (torch.randn(BATCH, 8),)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.table = nn.Linear(5, 6)
        self.both = nn.Bilinear(16, 6, 4)

    def forward(self, image: Tensor, table: Tensor) -> dict[str, Tensor]:
        left, right = self.image(image), self.table(table).tanh()
        return {"hidden": right, "logits": self.both(left, right)}


@network
def two_inputs() -> Made:
    return TwoInputs(), (torch.randn(BATCH, 1, 4, 4), torch.randn(BATCH, 5))


class DenseBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                f"dense-{at}": nn.Sequential(
                    nn.BatchNorm2d(3 + 2 * at),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(3 + 2 * at, 2, 3, 1, 1),
                )
                for at in range(3)
            }
        )
        self.norm = nn.BatchNorm2d(9, momentum=None)
        self.head = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values():
            x = torch.cat([x, layer(x)], dim=1)
        with torch.no_grad():
            gate = x.mean(dim=(2, 3), keepdim=True).sigmoid()
        return self.head((self.norm(x) * gate).mean((2, 3)))


@network
def densenet() -> Made:
    return DenseBlock(), (torch.randn(BATCH, 3, 6, 6),)


@network
def half_precision() -> Made:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    return net.to(torch.bfloat16), (torch.randn(BATCH, 1, 6, 6).to(torch.bfloat16),)
