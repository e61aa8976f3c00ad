from __future__ import annotations

import asyncio

import pytest

from sidecar.errors import OrderRefused, StateError
from tests.fakes.book import Desktop, code_of
from tests.fakes.orders import OTHER, make_grant, make_review, make_revocation, sign_order


@pytest.fixture
def desktop(tmp_path) -> Desktop:
    return Desktop(tmp_path)


def test_every_refusal_is_told_with_what_was_claimed_and_nothing_is_kept(desktop):
    grant = make_grant(desktop.clock)
    orders = {
        "malformed": b"nonsense",
        "unknown-signer": sign_order(grant, "stranger"),
        "wrong-signer": sign_order(grant, "lead"),
        "self-approval": sign_order(grant, "oncall", "oncall"),
        "duplicate-signer": sign_order(grant, "oncall", "lead", "lead"),
        "audience": sign_order(make_grant(desktop.clock, audience=(OTHER,)), "oncall"),
        "too-long": sign_order(make_grant(desktop.clock, ttl_s=3601), "oncall"),
        "unknown-grant": sign_order(make_review(desktop.clock, grant.id), "lead"),
    }

    async def story() -> None:
        book = await desktop.open()
        for code, data in orders.items():
            assert await code_of(book, data) == code
        told = desktop.heard("submit")
        assert [body["code"] for body in told] == list(orders)
        assert {body["result"] for body in told} == {"refused"}
        assert "claimed" not in told[0]
        assert told[1]["claimed"]["grant"] == grant.id and told[1]["claimed"]["requester"] == "oncall"
        assert told[-1]["claimed"] == {"kind": "review", "grant": grant.id, "signer": "lead"}
        assert book.entries == 1 and book.listing() == []
        await book.close()

    asyncio.run(story())


def test_an_accepted_grant_is_told_once_with_who_signed_it(desktop):
    grant = make_grant(desktop.clock)
    data = sign_order(grant, "oncall", "lead")

    async def story() -> None:
        book = await desktop.open()
        answers = await asyncio.gather(*(book.submit_order(data) for _ in range(5)))
        assert sorted(answer["result"] for answer in answers) == ["accepted"] + ["known"] * 4
        (told,) = desktop.heard("submit")
        assert told["result"] == "ok" and told["signers"] == ["oncall", "lead"]
        assert told["reason"] == grant.reason and told["not_after"] == "2026-11-24T12:15:00Z"
        assert book.entries == 2
        await book.close()

    asyncio.run(story())


def test_bg_20_a_grant_that_nobody_can_be_told_of_does_not_count(desktop):
    grant = make_grant(desktop.clock)

    def deaf(event: str, body: object) -> None:
        raise RuntimeError("the log is gone")

    async def story() -> None:
        book = await desktop.open()
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        desktop_hear, book._holdings.on_event = book._holdings.on_event, deaf
        handing_in = asyncio.ensure_future(book._desk._submit_grant(*parts(sign_order(grant, "oncall"))))
        with pytest.raises(StateError, match="nobody could be told"):
            await handing_in
        assert book.active_count == 0
        book._holdings.on_event = desktop_hear
        await book.close()

    asyncio.run(story())


def parts(data: bytes):
    from sidecar.breakglass.order import decode_order

    order = decode_order(data)
    return data, order, order.body


def test_a_revocation_that_comes_while_the_grant_is_being_written_wins(desktop):
    grant = make_grant(desktop.clock)

    async def story() -> None:
        book = await desktop.open()
        results = await asyncio.gather(
            code_of(book, sign_order(grant, "oncall")),
            code_of(book, sign_order(make_revocation(desktop.clock, grant.id), "lead")),
        )
        assert results == ["accepted", "accepted"]
        assert book.active_count == 0 and book.listing()[0]["state"] == "revoked"
        await book.close()
        book = await desktop.open()
        assert book.active_count == 0
        await book.close()

    asyncio.run(story())


def test_revocations_have_a_bound(desktop, monkeypatch):
    monkeypatch.setattr("sidecar.breakglass.desk.MAX_REVOCATIONS", 2)

    async def story() -> None:
        book = await desktop.open()
        codes = [
            await code_of(book, sign_order(make_revocation(desktop.clock, letter * 32), "lead"))
            for letter in "abcb"
        ]
        assert codes == ["accepted", "accepted", "capacity", "known"]
        await book.close()

    asyncio.run(story())


def test_a_review_is_for_somebody_else_and_for_afterwards(desktop):
    grant = make_grant(desktop.clock, ttl_s=60)

    def review(name: str, **changes: str) -> bytes:
        return sign_order(make_review(desktop.clock, grant.id, name), name)

    async def story() -> None:
        book = await desktop.open()
        assert await code_of(book, review("lead")) == "unknown-grant"
        await book.submit_order(sign_order(grant, "oncall"))
        assert await code_of(book, review("lead")) == "not-ended"
        desktop.clock.advance(60)
        assert await code_of(book, review("oncall")) == "self-review"
        data = review("lead")
        assert await code_of(book, data) == "accepted"
        assert await code_of(book, data) == "known"
        assert await code_of(book, review("third")) == "accepted"
        assert [each["by"] for each in book.listing()[0]["reviews"]] == ["lead", "third"]
        assert [body["signer"] for body in desktop.heard("review")] == ["lead", "third"]
        entries = book.entries
        await book.close()
        book = await desktop.open()
        assert len(book.listing()[0]["reviews"]) == 2 and book.entries >= entries
        await book.close()

    asyncio.run(story())


def test_the_same_review_in_parallel_is_kept_once_and_reviews_have_a_bound(desktop, monkeypatch):
    monkeypatch.setattr("sidecar.breakglass.desk.MAX_REVIEWS", 2)
    grant = make_grant(desktop.clock, ttl_s=60)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        desktop.clock.advance(60)
        data = sign_order(make_review(desktop.clock, grant.id), "lead")
        await asyncio.gather(*(book.submit_order(data) for _ in range(3)))
        assert len(book.listing()[0]["reviews"]) == 1
        desktop.clock.advance(1)
        assert await code_of(book, sign_order(make_review(desktop.clock, grant.id), "lead")) == "accepted"
        desktop.clock.advance(1)
        assert await code_of(book, sign_order(make_review(desktop.clock, grant.id), "lead")) == "capacity"
        await book.close()

    asyncio.run(story())


def test_a_revoked_grant_can_be_reviewed_before_its_end(desktop):
    grant = make_grant(desktop.clock)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        await book.submit_order(sign_order(make_revocation(desktop.clock, grant.id, "third"), "third"))
        assert await code_of(book, sign_order(make_review(desktop.clock, grant.id), "lead")) == "accepted"
        await book.close()

    asyncio.run(story())


def test_the_requester_can_revoke_too(desktop):
    grant = make_grant(desktop.clock)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        revocation = make_revocation(desktop.clock, grant.id, "oncall")
        answer = await book.submit_order(sign_order(revocation, "oncall"))
        assert answer == {"result": "accepted", "kind": "revocation", "grant": grant.id, "signer": "oncall"}
        assert [body["signer"] for body in desktop.heard("revoke")] == ["oncall"]
        assert book.listing()[0]["revoked"]["by"] == "oncall"
        with pytest.raises(OrderRefused, match="revoked"):
            await book.submit_order(sign_order(grant, "oncall"))
        await book.close()

    asyncio.run(story())
