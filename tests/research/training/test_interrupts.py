"""Signals: the first is kept, its echo is passed over, a later one ends at once."""

import os
import signal

import pytest

from research.training import interrupts
from research.training.interrupts import Interrupts, Stopped


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)]
)
def test_exit_codes_are_those_of_shells(number, code):
    assert Stopped(number).exit_code == code


def test_the_first_signal_is_kept_and_a_second_ends_at_once_unless_it_is_an_echo(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    now = [100.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])
    with Interrupts() as found:
        assert found.received is None
        send(signal.SIGTERM)
        send(signal.SIGINT)  # as where the one is sent to a group and the other passed on
        assert found.received is signal.SIGTERM
        now[0] += interrupts.ECHO + 0.1
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_context_in_another_takes_over_and_hands_back():
    with Interrupts() as outer:
        send(signal.SIGUSR1)
        with Interrupts() as inner:
            assert inner.received is signal.SIGUSR1
    with Interrupts() as outer:
        with Interrupts() as inner:
            send(signal.SIGINT)
        assert outer.received is inner.received is signal.SIGINT
        send(signal.SIGINT)  # an echo: the outer one knows when the first came
