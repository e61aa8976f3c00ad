from __future__ import annotations

import os
from datetime import timedelta

import pytest

from sidecar.errors import ConfigurationError, StateError, UnavailableError
from sidecar.identity.spiffe_id import parse_spiffe_id
from sidecar.issuer.durable import TEMPORARY
from sidecar.issuer.process import POLL_S, Task, run_issuer
from sidecar.issuer.store import init_store, open_store
from tests.fakes.clock import FakeClock

WEB = parse_spiffe_id("spiffe://shop.test/web")
ORDERS = parse_spiffe_id("spiffe://shop.test/orders")


class Script:
    """An ending that plays one step at each wait, and ends after the last."""

    def __init__(self, *steps) -> None:
        self._steps = list(steps)
        self.waited_s: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waited_s.append(seconds)
        if not self._steps:
            return True
        self._steps.pop(0)()
        return not self._steps


@pytest.fixture()
def clock():
    return FakeClock()


@pytest.fixture()
def store(tmp_path, clock):
    return init_store(tmp_path / "issuer", "shop.test", clock)


def serial(store, spiffe_id=WEB):
    certificate = store.issued_certificate(spiffe_id)
    return certificate and certificate.serial_number


def test_it_issues_until_it_is_told_to_end(store, clock):
    store.add(WEB, clock)
    seen = []
    ending = Script(
        lambda: seen.append(serial(store)),
        lambda: store.add(ORDERS, clock),
        lambda: seen.append(serial(store, ORDERS)),
        lambda: clock.advance(2000),
        lambda: seen.append(serial(store)),
    )
    assert run_issuer(Task(directory=store.directory), clock, ending) is True
    assert None not in seen and seen[0] != seen[2]
    assert set(ending.waited_s) == {POLL_S} and POLL_S <= 0.5
    assert store.is_issuing() is False


def test_entries_of_the_command_line_are_added_and_stay(store, clock):
    run_issuer(Task(directory=store.directory, entries=[WEB]), clock, Script())
    assert list(store.entries()) == ["web"] and serial(store)


def test_once(store, clock):
    assert run_issuer(Task(directory=store.directory, entries=[WEB], once=True), clock, Script()) is True
    assert serial(store)
    (store.svids / "web" / f"{TEMPORARY}1").touch()
    (store.directory / "entries" / "bad.json").touch(0o600)
    assert run_issuer(Task(directory=store.directory, once=True), clock, Script()) is False
    assert not (store.svids / "web" / f"{TEMPORARY}1").exists()


def test_a_missing_authority_is_made_if_that_was_asked_for(tmp_path, clock):
    directory = tmp_path / "new"
    with pytest.raises(ConfigurationError, match="there is no authority"):
        run_issuer(Task(directory=directory, entries=[WEB]), clock, Script())
    assert not directory.exists()
    run_issuer(Task(directory=directory, entries=[WEB], init=True), clock, Script())
    assert open_store(directory).trust_domain == "shop.test"


@pytest.mark.parametrize("entries", [[], [WEB, parse_spiffe_id("spiffe://other.test/web")]])
def test_which_trust_domain_to_make_has_to_be_clear(tmp_path, clock, entries):
    with pytest.raises(ConfigurationError, match="name one --entry"):
        run_issuer(Task(directory=tmp_path / "new", entries=entries, init=True), clock, Script())
    assert not (tmp_path / "new").exists()


def test_an_entry_of_another_trust_domain_is_refused(store, clock):
    other = parse_spiffe_id("spiffe://other.test/web")
    for init in (False, True):
        with pytest.raises(ConfigurationError, match=r"other\.test"):
            run_issuer(Task(directory=store.directory, entries=[other], init=init), clock, Script())
    assert store.entries() == {}


def test_a_second_process_stands_by_and_takes_over(store, clock):
    store.add(WEB, clock)
    first = store.run_lock()
    first.acquire(wait=False)
    seen = []
    ending = Script(
        lambda: seen.append(serial(store)),
        lambda: seen.append(serial(store)),
        first.release,
        lambda: seen.append(serial(store)),
    )
    assert run_issuer(Task(directory=store.directory), clock, ending) is True
    assert seen[:2] == [None, None] and seen[2] is not None
    assert max(ending.waited_s) <= 0.5


def test_a_second_process_adds_its_entry_for_the_first(store, clock):
    first = store.run_lock()
    first.acquire(wait=False)
    assert run_issuer(Task(directory=store.directory, entries=[WEB]), clock, Script()) is True
    assert list(store.entries()) == ["web"] and serial(store) is None
    first.release()


def test_once_does_not_stand_by(store, clock):
    first = store.run_lock()
    first.acquire(wait=False)
    with pytest.raises(UnavailableError, match="another process issues"):
        run_issuer(Task(directory=store.directory, once=True), clock, Script())
    first.release()


def test_the_key_is_not_opened_while_standing_by(store, clock):
    (store.directory / "authority_key.pem").chmod(0o644)
    first = store.run_lock()
    first.acquire(wait=False)
    assert run_issuer(Task(directory=store.directory), clock, Script()) is True
    first.release()
    with pytest.raises(StateError, match="open to others"):
        run_issuer(Task(directory=store.directory), clock, Script())
    assert store.is_issuing() is False


def test_a_directory_that_was_replaced_ends_it(store, clock, tmp_path):
    def replace():
        os.rename(store.directory, tmp_path / "away")
        init_store(store.directory, "shop.test", clock)

    with pytest.raises(StateError, match="replaced or removed"):
        run_issuer(Task(directory=store.directory, entries=[WEB]), clock, Script(replace, lambda: None))


def test_entries_that_cannot_be_listed_are_told_once_and_tried_again(store, clock, caplog):
    entries, away = store.directory / "entries", store.directory / "away"
    store.add(WEB, clock)
    ending = Script(
        lambda: os.rename(entries, away),
        lambda: None,
        lambda: None,
        lambda: os.rename(away, entries),
        lambda: clock.advance(2000),
        lambda: None,
    )
    run_issuer(Task(directory=store.directory, lifetime=timedelta(minutes=10)), clock, ending)
    assert sum("cannot be read" in record.message for record in caplog.records) == 1
    assert store.issued_certificate(WEB).not_valid_after_utc > clock.now()
