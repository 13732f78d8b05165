"""Reports pass through unchanged, whatever is shown; the terminal gets a bar, a file plain lines."""

import io

import pytest
from rich.console import Console

from nerfkit.train import progress
from nerfkit.train.progress import Report, describe, show


def report(step: int, share: float = 0.5, test_psnr: float | None = None) -> Report:
    return Report(
        step=step,
        seconds=step / 10,
        loss=0.01,
        psnr=20.0 + step / 100,
        rays_per_second=1.25e6,
        samples_per_ray=7.5,
        samples_per_second=9e6,
        learning_rate=0.01,
        occupancy=0.1,
        progress=share,
        eta=75.0,
        test_psnr=test_psnr,
    )


class Training:
    """An iterator that knows whether it was closed, as `fit` is."""

    def __init__(self, n: int, fails_at: int = -1):
        self.closed, self.fails_at = False, fails_at
        self.reports = (report(step, step / n) for step in range(1, n + 1))

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self.reports)
        if item.step == self.fails_at:
            raise KeyboardInterrupt
        return item

    def close(self):
        self.closed = True


def console(terminal: bool, width: int = 100) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)


@pytest.mark.parametrize("terminal", [False, True])
def test_reports_pass_through_in_order_and_unchanged(terminal):
    reports = [report(step, step / 5) for step in range(1, 6)]
    assert list(show(iter(reports), console=console(terminal))) == reports
    assert list(show([], console=console(terminal))) == []


@pytest.mark.parametrize("terminal", [False, True])
def test_stopping_early_closes_the_training(terminal):
    training = Training(9)
    shown = show(training, console=console(terminal))
    for item in shown:
        if item.step == 3:
            break
    shown.close()
    assert training.closed


@pytest.mark.parametrize("terminal", [False, True])
def test_an_interruption_goes_through_and_leaves_the_terminal_whole(terminal):
    screen = console(terminal)
    training = Training(9, fails_at=4)
    with pytest.raises(KeyboardInterrupt):
        list(show(training, console=screen))
    assert training.closed
    written = screen.file.getvalue()
    assert "step 3" in written
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h"), "the cursor is shown again"


def test_plain_lines_come_at_their_period_and_at_both_ends(monkeypatch):
    clock = iter(range(100))  # one second a look
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    screen = console(False)
    list(show((report(step) for step in range(1, 21)), every=4.5, console=screen))
    steps = [int(line.split()[1]) for line in screen.file.getvalue().splitlines()]
    assert steps[0] == 1 and steps[-1] == 20 and len(steps) == len(set(steps))
    assert 3 <= len(steps) <= 7
    assert "\x1b" not in screen.file.getvalue()


def test_a_single_line_even_where_the_page_is_narrow():
    screen = console(False, width=20)
    list(show([report(1)], console=screen))
    assert len(screen.file.getvalue().splitlines()) == 1


def test_the_bar_shows_the_facts_and_is_not_repeated_as_lines():
    screen = console(True, width=120)
    list(show([report(50, 0.5), report(100, 1.0, test_psnr=19.5)], console=screen))
    written = screen.file.getvalue()
    for fact in (
        "100 %",
        "step 100",
        "21.00 dB",
        "19.50 dB held out",
        "1.25 M rays/s",
        "7.5 samples/ray",
        "1:15 min left",
    ):
        assert fact in written
    assert describe(report(100)) not in written


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_the_bar_keeps_to_one_line_and_leaves_nothing_half_said(width):
    screen = console(True, width=width)
    list(show([report(12345, 0.38, test_psnr=19.5)], console=screen))
    last = screen.file.getvalue().split("\x1b[2K")[-1].split("\n")[0]
    assert len(last) <= width and "38 %" in last and "step 12345" in last
    assert "…" not in last and ("━" in last or width < 40)


def test_a_line_says_it_all():
    line = describe(report(1200, 0.38, test_psnr=21.5))
    assert line == (
        "step 1200   38 %  PSNR 32.00 dB (held out 21.50)  1.25 M rays/s  7.5 samples/ray  2:00 min, 1:15 min left"
    )
    assert "\n" not in describe(report(0, 0.0))


def test_nothing_goes_to_standard_output(capsys):
    list(show([report(1)]))
    out, err = capsys.readouterr()
    assert out == "" and "step 1" in err
