"""Recurrent networks: layers, cells unrolled in time, states given, kept and thrown away."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.unit.engine.breadth.registry import BATCH, Family, Made

RECURRENT = Family({})
STEPS, FEATURES, HIDDEN = 5, 4, 6


def sequence() -> tuple[Tensor, ...]:
    return (torch.randn(BATCH, STEPS, FEATURES),)


class Last(nn.Module):
    """The outputs at the last step go to the classes."""

    def __init__(self, rnn: nn.Module, width: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.rnn(x)[0][:, -1]))


@RECURRENT.register
def lstm() -> Made:
    rnn = nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True, bidirectional=True, dropout=0.2)
    return Last(rnn, 2 * HIDDEN), sequence()


@RECURRENT.register
def lstm_projected() -> Made:
    rnn = nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True, proj_size=3)
    return Last(rnn, 3), sequence()


@RECURRENT.register
def lstm_without_biases() -> Made:
    return Last(nn.LSTM(FEATURES, HIDDEN, batch_first=True, bias=False), HIDDEN), sequence()


@RECURRENT.register
def gru() -> Made:
    return Last(nn.GRU(FEATURES, HIDDEN, 3, batch_first=True, dropout=0.3), HIDDEN), sequence()


@RECURRENT.register
def rnn_tanh() -> Made:
    return Last(nn.RNN(FEATURES, HIDDEN, batch_first=True), HIDDEN), sequence()


@RECURRENT.register
def rnn_relu() -> Made:
    rnn = nn.RNN(FEATURES, HIDDEN, 2, "relu", batch_first=True, bidirectional=True)
    return Last(rnn, 2 * HIDDEN), sequence()


class States(nn.Module):
    """Hidden and cell states of all layers, and no output, go to the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, HIDDEN, 2, bidirectional=True)
        self.gru = nn.GRU(FEATURES, HIDDEN)
        self.head = nn.Linear(8 * HIDDEN + HIDDEN, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        _, (hidden, cell) = self.lstm(x)
        states = torch.cat([hidden, cell]).transpose(0, 1).flatten(1)
        return self.head(torch.cat([states, self.gru(x)[1][0]], dim=1))


@RECURRENT.register
def states() -> Made:
    return States(), sequence()


class Learned(nn.Module):
    """The state at the start is learned; that of a second layer is written as zeros by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.h0 = nn.Parameter(torch.randn(1, 1, HIDDEN))
        self.c0 = nn.Parameter(torch.randn(1, 1, HIDDEN))
        self.first = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.second = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.third = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.size(0)
        state = (self.h0.expand(-1, batch, -1).contiguous(), self.c0.repeat(1, batch, 1))
        x, _ = self.first(x, state)
        x, _ = self.second(x, torch.zeros(1, batch, HIDDEN))
        zeros = x.new_zeros(1, batch, HIDDEN)
        x, _ = self.third(x, (zeros, torch.zeros_like(zeros)))
        return self.head(x.mean(1))


@RECURRENT.register
def learned_states() -> Made:
    return Learned(), sequence()


class Coder(nn.Module):
    """An encoder whose state starts a decoder; the encoder's layer is used for both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, FEATURES, padding_idx=0)
        self.encoder = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.decoder = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.head = nn.Linear(2 * HIDDEN, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        _, state = self.encoder(x)
        back, _ = self.encoder(x.flip(1))
        out, _ = self.decoder(x, state)
        return self.head(torch.cat([out[:, -1], back[:, -1]], dim=1))


@RECURRENT.register
def coder() -> Made:
    return Coder(), (torch.randint(0, 20, (BATCH, STEPS)),)


class Tagger(nn.Module):
    """One answer for every position; the mask of the padding is an input."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, FEATURES)
        self.lstm = nn.LSTM(FEATURES, HIDDEN, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * HIDDEN, 5)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.lstm(self.words(tokens))[0]) * mask.unsqueeze(-1)


@RECURRENT.register
def tagger() -> Made:
    mask = torch.ones(BATCH, STEPS, dtype=torch.bool)
    mask[1, 3:] = False
    return Tagger(), (torch.randint(0, 20, (BATCH, STEPS)), mask)


class Cells(nn.Module):
    """Cells unrolled by hand: their weights are used at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTMCell(FEATURES, HIDDEN)
        self.gru = nn.GRUCell(HIDDEN, HIDDEN)
        self.rnn = nn.RNNCell(HIDDEN, HIDDEN, nonlinearity="relu")
        self.plain = nn.RNNCell(HIDDEN, HIDDEN, bias=False)
        self.head = nn.Linear(HIDDEN, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], HIDDEN), torch.zeros(x.shape[0], HIDDEN)
        other: Tensor | None = None
        for step in range(x.shape[1]):
            state = self.lstm(x[:, step], state)
            other = self.gru(state[0], other)
        return self.head(self.plain(self.rnn(other, state[1])))


@RECURRENT.register
def cells() -> Made:
    return Cells(), sequence()


class GatedCells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.GRUCell(FEATURES, HIDDEN), nn.GRUCell(HIDDEN, HIDDEN)])
        self.head = nn.Linear(HIDDEN, 3)

    def forward(self, x: Tensor) -> Tensor:
        states = [x.new_zeros(x.shape[0], HIDDEN) for _ in self.cells]
        for step in x.unbind(1):
            for at, cell in enumerate(self.cells):
                step = states[at] = cell(step, states[at])
        return self.head(states[-1])


@RECURRENT.register
def gru_cells() -> Made:
    return GatedCells(), sequence()


class ConvolutionalRecurrent(nn.Module):
    """Columns of an image are the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        )
        self.rnn = nn.GRU(16, HIDDEN, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * HIDDEN, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        batch, channels, height, width = x.shape
        x = x.permute(0, 3, 1, 2).reshape(batch, width, channels * height)
        return self.head(self.rnn(x)[0].amax(dim=1))


@RECURRENT.register
def convolutional_recurrent() -> Made:
    return ConvolutionalRecurrent(), (torch.randn(BATCH, 1, 8, 10),)
