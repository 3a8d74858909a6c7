"""Who is gone, and where all stop: from what is heard and when, without any process."""

import signal
import threading
import time

import pytest

from research.distributed import group as group_lib
from research.distributed import watch
from research.distributed.group import Agreement, Group
from research.distributed.watch import SILENT, STILL, Pulses
from research.errors import UserError


def heard(pulses, seconds, beats):
    """What is said of three processes at the end of `seconds` in which each was asked each second.

    `beats` gives {process: (number of its beat, batches)} at a second.
    """
    for second in range(1, seconds + 1):
        found = beats(second)
        if found is not None:
            pulses.hear(found, float(second))
        if said := pulses.verdict(float(second)):
            return second, said
    return None


def test_processes_that_beat_are_alive_however_long_they_take():
    assert heard(Pulses(0, 3, 0.0), 2000, lambda now: dict.fromkeys(range(3), (now, 7))) is None


def test_one_that_is_silent_is_named_within_a_minute():
    def beats(now):
        return {0: (now, now), 1: (min(now, 100), min(now, 100)), 2: (now, now)}

    when, (index, reason) = heard(Pulses(2, 3, 0.0), 300, beats)
    assert index == 1 and 100 + SILENT < when < 160 and "no sign of life" in reason


def test_one_that_never_beat_is_named():
    _, (index, _) = heard(Pulses(0, 3, 0.0), 300, lambda now: {0: (now, 0), 2: (now, 0)})
    assert index == 1


def test_the_first_is_named_where_its_store_does_not_answer():
    def beats(now):
        last = {0: (now, 7), 1: (min(now, 95), 7), 2: (now, 7)}
        return last if now < 100 else None

    when, (index, _) = heard(Pulses(2, 3, 0.0), 300, beats)
    assert index == 0 and when < 160


def test_one_that_lives_and_lags_is_named_once_nothing_moves():
    def beats(now):  # the second waits for ever in its tenth batch, the others two batches on
        return {0: (now, min(now, 12)), 1: (now, min(now, 10)), 2: (now, min(now, 12))}

    when, (index, reason) = heard(Pulses(0, 3, 0.0), 1000, beats)
    assert index == 1 and STILL < when < STILL + 60 and "10 batches" in reason


def test_a_slow_one_that_moves_is_not_named():
    def beats(now):
        return {0: (now, 2 + now // 250), 1: (now, now // 250), 2: (now, 2 + now // 250)}

    assert heard(Pulses(0, 3, 0.0), 3000, beats) is None


def test_one_that_stood_still_itself_blames_nobody():
    def lagging(now):
        return {0: (now, 12), 1: (now, 10), 2: (now, 12)}

    pulses = Pulses(1, 3, 0.0)
    assert heard(pulses, 10, lagging) is None
    assert pulses.verdict(500.0) is None  # stopped at second 10, and went on at 500
    pulses.hear(lagging(501), 501.0)
    assert pulses.verdict(501.0) is None


class Store:
    """A key-value store as JAX's coordination service has."""

    def __init__(self):
        self.values, self.lock = {}, threading.Lock()

    def key_value_set(self, key, value, allow_overwrite=False):
        with self.lock:
            if key in self.values and not allow_overwrite:
                raise RuntimeError("ALREADY_EXISTS")
            self.values[key] = value

    def key_value_dir_get(self, prefix):
        with self.lock:
            return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]

    def blocking_key_value_get(self, key, timeout):
        until = threading.Event()
        for _ in range(timeout):
            with self.lock:
                if key in self.values:
                    return self.values[key]
            until.wait(0.001)
        raise RuntimeError("DEADLINE_EXCEEDED")


@pytest.mark.parametrize("told", [[2], [0, 1]])
def test_all_stop_at_one_step_that_none_has_passed(told):
    """Three that may be two steps apart, of which some are sent a signal at their step 50."""
    store, barrier = Store(), threading.Semaphore(0)
    agreements = [Agreement(Group(i, 3, store)) for i in range(3)]
    stopped, done, steps = {}, threading.Event(), [0, 0, 0]

    def settle():
        while not done.is_set():
            for one in agreements:
                one.settle(dict(store.key_value_dir_get("watch/")))
                done.wait(0.01)  # others pass steps meanwhile

    def train(i):
        for step in range(1, 10_000):
            while step - min(steps) > 2 and not done.is_set():  # as collectives keep them together
                done.wait(0.0005)
            received = signal.SIGUSR1 if i in told and step >= 50 else None
            if found := agreements[i].due(step, received):
                stopped[i] = step, found
                break
            steps[i] = step
        barrier.release()

    threads = [threading.Thread(target=train, args=(i,), daemon=True) for i in range(3)]
    threading.Thread(target=settle, daemon=True).start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    done.set()
    assert len(set(stopped.values())) == 1 and len(stopped) == 3
    step, found = stopped[0]
    assert step > 50 and found == signal.SIGUSR1


def test_values_are_exchanged_in_order_and_anew_each_time():
    store = Store()
    groups = [Group(i, 3, store) for i in range(3)]
    found = {}

    def tell(group):
        found[group.index] = [group.exchange("x", f"{group.index}.{k}") for k in range(5)]

    threads = [threading.Thread(target=tell, args=(group,)) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {own: [[f"{i}.{k}" for i in range(3)] for k in range(5)] for own in range(3)}


def in_threads(do):
    """What do(group) returns or raises in each of two processes of a store."""
    store, found = Store(), {}

    def work(group):
        try:
            found[group.index] = do(group)
        except UserError as error:
            found[group.index] = error

    groups = [Group(index, 2, store) for index in range(2)]
    threads = [threading.Thread(target=work, args=(group,), daemon=True) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found[0], found[1]


@pytest.mark.parametrize("patient", [False, True])
def test_one_that_works_for_hours_is_waited_for_where_it_may(patient, monkeypatch):
    monkeypatch.setattr(group_lib, "PATIENCE", 0.05)

    def come(group):
        time.sleep(0.5 * group.index)
        return group.exchange("end", str(group.index), patient=patient)

    first, second = in_threads(come)
    assert second == ["0", "1"]
    if patient:
        assert first == second
    else:
        assert "process 1 of 2 has not come to 'end'" in str(first)


def test_what_differs_is_refused_in_all_alike(monkeypatch):
    mine = threading.local()
    monkeypatch.setattr(group_lib, "current", lambda: mine.group)

    def compare(*values):
        def work(group):
            mine.group = group
            own = {"order": "1f", "seed": values[group.index]}
            return group_lib.refuse_different("data", own, "bring the same data")

        return in_threads(work)

    assert compare("a", "a") == (None, None)
    first, second = compare("a", "b")
    assert isinstance(first, UserError) and str(first) == str(second)
    assert str(first) == (
        "process 1 of 2 has another seed than process 0 of 2 (b, not a); bring the same data."
    )


def test_the_limits_leave_less_than_a_minute():
    assert SILENT + 10 * watch.BEAT < 60
