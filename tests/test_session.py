"""Stopping a training: at a whole step, or at once for who asks twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from nerfkit.ranks import Ranks
from nerfkit.session import interruptible, train_until_done
from nerfkit.train.progress import Report


class Training:
    """What ``fit`` does, as far as stopping goes; sends itself signals at some steps."""

    def __init__(self, n_steps: int, signals: dict[int, list[int]]) -> None:
        self.n_steps, self.signals, self.step, self.closed_at = n_steps, signals, 0, None

    def reports(self) -> Iterator[Report]:
        try:
            while self.step < self.n_steps:
                for kind in self.signals.get(self.step, []):
                    os.kill(os.getpid(), kind)
                self.step += 1
                share = self.step / self.n_steps
                yield Report(self.step, 10.0 + self.step, 0.1, 20.0, 1.0, 1.0, 1.0, 0.01, 0.5, share, 0.0)
        finally:
            self.closed_at = self.step


def heard(number: float) -> None:
    """Take the seconds of preparation, and forget them."""


def test_a_training_that_nobody_stops_goes_to_its_end() -> None:
    training, waited = Training(3, {}), []
    assert train_until_done(training.reports(), 10.5, waited.append) is False
    assert training.closed_at == 3
    assert len(waited) == 1 and -0.6 < waited[0] < 0  # the first report claims half a second that did not pass


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_the_next_report(kind: int) -> None:
    training, before = Training(9, {3: [kind]}), signal.getsignal(kind)
    assert train_until_done(training.reports(), 10.0, heard) is True
    assert training.closed_at == 4
    assert signal.getsignal(kind) is before


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_ignored_stops_nothing(kind: int) -> None:
    signal.signal(kind, signal.SIG_IGN)
    training = Training(9, {0: [kind], 3: [kind]})
    with interruptible():
        assert train_until_done(training.reports(), 10.0, heard) is False
    assert training.closed_at == 9
    assert signal.getsignal(kind) is signal.SIG_IGN


def test_a_signal_during_the_last_step_stops_nothing() -> None:
    training = Training(4, {3: [signal.SIGINT]})
    assert train_until_done(training.reports(), 10.0, heard) is False
    assert training.closed_at == 4


def test_a_second_signal_does_not_wait() -> None:
    training, before = Training(9, {3: [signal.SIGINT, signal.SIGINT]}), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_until_done(training.reports(), 10.0, heard)
    assert training.closed_at == 3
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_before_the_first_report_a_signal_stops_at_once(kind: int) -> None:
    training, before = Training(9, {0: [kind]}), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible():
        train_until_done(training.reports(), 10.0, heard)
    assert training.closed_at == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_report_is_shown_after_all_know_who_was_asked_to_stop(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []

    class Two(Ranks):
        def exchange(self, thing: bool) -> list[bool]:
            said.append(capsys.readouterr().err)
            return [thing, len(said) == 2]  # the other one is asked during the second step

    training = Training(9, {})
    assert train_until_done(training.reports(), 10.0, heard, Two()) is True
    assert training.closed_at == 2
    assert said[0] == "" and said[1].startswith("step 1 ")
