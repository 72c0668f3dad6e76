"""One line that says how far an analysis is."""

from __future__ import annotations

import pytest

from worker.progress_bar import STEPS, ProgressBar, clock, progress_bar


class Bar:
    """What click's bar is to ours."""

    def __init__(self) -> None:
        self.pos = 0
        self.moves: list[int] = []
        self.text = ""

    def update(self, steps: int, text: str) -> None:
        self.moves.append(steps)
        self.pos += steps
        self.text = text


def test_it_says_points_samples_and_time_left() -> None:
    bar = Bar()
    shown = ProgressBar(bar, 418)
    shown.count(128, 93)
    shown.advance(0.25, 41.2, 1_234_567)
    assert bar.text == "128 of 418 known, 93 settled, 1,234,567 samples, 0:41 left"
    assert bar.pos == STEPS // 4


def test_it_never_goes_back_nor_beyond_its_end() -> None:
    bar = Bar()
    shown = ProgressBar(bar, 10)
    for fraction in (0.5, 0.3, 0.6, 1.2):
        shown.advance(fraction, None, 0)
    assert all(steps >= 0 for steps in bar.moves)
    assert bar.pos == STEPS
    assert "left" not in bar.text


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00"), (7.4, "0:07"), (750, "12:30"), (11_045, "3:04:05")]
)
def test_times_as_on_a_clock(seconds: float, said: str) -> None:
    assert clock(seconds) == said


def test_where_there_is_no_terminal_a_summary_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(6, "6 points") as shown:
        shown.advance(0.4, 3.0, 90)
        shown.count(6, 6)
        shown.advance(1.0, 0.0, 320)
    said = capsys.readouterr()
    assert said.out == ""
    assert "6 points" in said.err
    assert "6 points from 320 evaluated samples in 0:0" in said.err
