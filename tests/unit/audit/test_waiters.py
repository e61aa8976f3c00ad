from __future__ import annotations

from sidecar.audit.waiters import Waiters


def test_each_is_told_once_and_with_its_own_ticket():
    waiters, told = Waiters(), []
    waiters.add(lambda on_disk: told.append(("a", on_disk)))
    first = waiters.take_ticket()
    assert not waiters
    waiters.add(lambda on_disk: told.append(("b", on_disk)))
    second = waiters.take_ticket()
    waiters.settle([second], True)
    assert told == [("b", True)]
    waiters.settle([first, second], False)
    assert told == [("b", True), ("a", False)]


def test_refused_they_hear_no_and_nothing_later():
    waiters, told = Waiters(), []
    waiters.add(told.append)
    ticket = waiters.take_ticket()
    waiters.add(told.append)
    waiters.refuse_all()
    assert told == [False, False]
    waiters.settle([ticket], True)
    assert told == [False, False] and not waiters


def test_one_that_fails_keeps_nobody_waiting(caplog):
    waiters, told = Waiters(), []

    def bad(on_disk: bool) -> None:
        raise RuntimeError("mine")

    waiters.add(bad)
    waiters.add(told.append)
    waiters.settle([waiters.take_ticket()], True)
    assert told == [True] and "failed" in caplog.text


def test_one_that_waits_again_when_told_is_not_lost():
    waiters, told = Waiters(), []
    waiters.add(lambda on_disk: waiters.add(told.append))
    waiters.refuse_all()
    assert waiters
    waiters.settle([waiters.take_ticket()], True)
    assert told == [True]
