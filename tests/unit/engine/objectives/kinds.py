"""A small network and data for each kind of task, and its figures in plain Python.

The slow reference beside tests/unit/engine/naive.py: every answer on its own, nothing shared with
the engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from app.domain.metrics import Kind
from tests.unit.engine.traced import TracedModel, split_of, trace
from worker.engine.formats.splits import Split

IGNORED = -100


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.recurrent = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.recurrent(self.embedding(tokens))[0])


class Segmenter(nn.Module):
    """Down, up, and a way around."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.first(x))
        inner = self.up(torch.relu(self.down(first)))
        return self.head(torch.cat([first, inner], dim=1))


class Words(nn.Module):
    """A causal language model: each token sees those before it through a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.recurrent = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.recurrent(self.embedding(tokens))[0])


def labeller(sigmoid: bool) -> nn.Module:
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)]
    return nn.Sequential(*layers, *([nn.Sigmoid()] if sigmoid else []))


def _numbers(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    return generator.standard_normal(shape).astype(np.float32)


def _tags(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    tokens = generator.integers(0, 9, (n, 5))
    labels = tokens % 4
    for row, length in enumerate(generator.integers(1, 6, n)):
        labels[row, length:] = IGNORED
    return tokens, labels


def _maps(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = _numbers((n, 2, 6, 4), generator)
    labels = (x[:, 0] > 0.3).astype(np.int64) + (x[:, 1] > 0.5)
    labels[generator.random(labels.shape) < 0.1] = IGNORED
    return x, labels


def _yes_no(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = _numbers((n, 1, 6, 6), generator)
    return x, np.stack([x.mean((1, 2, 3)) > 0, x[:, 0, 0, 0] > 0.2, x[:, 0, 5, 5] > 0], axis=1)


def _targets(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = _numbers((n, 5), generator)
    return x, (300 * x[:, 0] - 200 * x[:, 1] * x[:, 2] + 1000).astype(np.float32)


def _text(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    start, step = generator.integers(0, 7, (n, 1)), generator.integers(1, 3, (n, 1))
    tokens = (start + step * np.arange(8)) % 7
    labels = np.concatenate([tokens[:, 1:], np.full((n, 1), IGNORED)], axis=1)
    return tokens, labels


@dataclass(frozen=True)
class Case:
    name: str
    kind: Kind
    task: str
    build: Callable[[], nn.Module]
    data: Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]
    tokens: bool = False

    def model(self) -> TracedModel:
        torch.manual_seed(4)
        dtype = torch.int64 if self.tokens else torch.float32
        return trace(self.build(), dtype)

    def split(self, samples: int, seed: int = 0) -> Split:
        x, y = self.data(samples, np.random.default_rng(seed))
        split = replace(split_of([x], y), task=self.task)
        return split.cast([torch.int64]) if self.tokens else split


CASES = [
    Case("tagger", Kind.PER_POSITION, "classification", Tagger, _tags, tokens=True),
    Case("segmentation", Kind.PER_POSITION, "classification", Segmenter, _maps),
    Case("labels", Kind.MULTI_LABEL, "classification", lambda: labeller(False), _yes_no),
    Case("labels-sigmoid", Kind.MULTI_LABEL, "classification", lambda: labeller(True), _yes_no),
    Case(
        "regression",
        Kind.REGRESSION,
        "regression",
        lambda: nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1)),
        _targets,
    ),
    Case("words", Kind.LANGUAGE_MODELLING, "language-modelling", Words, _text, tokens=True),
]


@dataclass(frozen=True)
class Figures:
    """`losses` are sums over a sample's answers, `answers` how many there are in all."""

    said: list[list[int]]
    judged: list[list[bool]]
    truth: list[list[int]]
    loss: float
    answers: int

    def correct(self) -> int:
        return sum(
            kept and said == truth
            for one, two, three in zip(self.said, self.truth, self.judged, strict=True)
            for said, truth, kept in zip(one, two, three, strict=True)
        )

    def paired(self, dense: Figures) -> tuple[int, int, int]:
        flips = lost = gained = 0
        for sample in range(len(self.said)):
            for at, kept in enumerate(self.judged[sample]):
                now, was = self.said[sample][at], dense.said[sample][at]
                right = self.truth[sample][at]
                flips += kept and now != was
                lost += kept and was == right != now
                gained += kept and now == right != was
        return flips, lost, gained


def naive(case: Case, model: Any, split: Split, batch_size: int) -> Figures:
    """The network as it stands, on the same batches."""
    model.module.eval()
    said: list[list[int]] = []
    judged: list[list[bool]] = []
    truth: list[list[int]] = []
    total = 0.0
    answers = 0
    for start in range(0, len(split), batch_size):
        inputs, labels = split.batch(start, start + batch_size)
        with torch.no_grad():
            output = model.module(*[x.clone() for x in inputs])
        batch = []
        for row, label in zip(output, labels, strict=True):
            if case.kind is Kind.REGRESSION:
                batch.append(float((row.double() - label.double()).square().mean()))
                said.append([])
                truth.append([])
                judged.append([])
                answers += 1
                continue
            if case.kind is Kind.MULTI_LABEL:
                logits = torch.logit(row, 1e-7) if case.name.endswith("sigmoid") else row
                goal = label.double()
                losses = functional.binary_cross_entropy_with_logits(
                    logits.double(), goal, reduction="none"
                ).tolist()
                said.append([int(v > 0) for v in logits.tolist()])
                truth.append([int(v) for v in label.tolist()])
                judged.append([True] * len(truth[-1]))
            else:
                width = {"tagger": 4, "segmentation": 3, "words": 7}[case.name]
                flat = row.reshape(width, -1).T if case.name == "segmentation" else row
                goals = label.reshape(-1)
                judged.append([int(g) != IGNORED for g in goals])
                truth.append([int(g) for g in goals])
                said.append([int(v.argmax()) for v in flat])
                losses = [
                    float(functional.cross_entropy(v.double()[None], g[None])) if kept else 0.0
                    for v, g, kept in zip(flat, goals, judged[-1], strict=True)
                ]
            batch.append(float(np.sum(losses)))
            answers += sum(judged[-1])
        total += float(np.sum(batch))
    assert math.isfinite(total)
    return Figures(said, judged, truth, total / answers, answers)
