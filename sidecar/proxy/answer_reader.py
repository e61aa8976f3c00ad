"""Reads what the upstream sends for one request: interim heads, the final head, the body, and where it all
ends. Pure.

The upstream is as little trusted as a caller. What has no single meaning is 502, and so is a byte too many:
it would be taken for the beginning of the next call's answer.
"""

from __future__ import annotations

from typing import Final

from sidecar.proxy.answer import Answer, AnswerBuffer, parse_answer
from sidecar.proxy.body import Decoder, build_decoder
from sidecar.proxy.errors import MessageError, upstream_invalid

MAX_INTERIM: Final = 8


class AnswerReader:
    """One per upstream connection; ``begin`` before each request, then ``feed`` with any slicing of the
    bytes.

    After ``feed``: ``answer`` is the final head or None, ``interim`` are the 102s and 103s to pass on (the
    caller of ``feed`` empties it), ``is_done`` says that the answer is complete and ``has_excess`` that more
    came after it.
    """

    __slots__ = (
        *("_decoder", "_heads", "_interim_count", "_last_answer", "_last_head", "_last_method", "_method"),
        *("answer", "has_excess", "has_read", "interim", "is_done"),
    )

    def __init__(self, max_head_bytes: int) -> None:
        self._heads = AnswerBuffer(max_head_bytes)
        self._decoder: Decoder | None = None
        self._interim_count = 0
        self._method = self._last_method = ""
        self._last_head = b""
        self._last_answer: Answer | None = None
        self.answer: Answer | None = None
        self.interim: tuple[Answer, ...] = ()
        self.has_read = False
        self.has_excess = False
        self.is_done = False

    def begin(self, method: str) -> None:
        """A request with this method is being sent; nothing of its answer has come."""
        self._method = method
        self._decoder = None
        self._interim_count = 0
        self.answer = None
        self.interim = ()
        self.has_read = False
        self.has_excess = False
        self.is_done = False

    def feed(self, data: bytes) -> bytes:
        """The body bytes in ``data``. Raises :class:`~sidecar.proxy.errors.UpstreamError` (502)."""
        self.has_read = True
        if self._decoder is not None:
            return self._feed_body(self._decoder, data)
        if self.is_done:
            self.has_excess = True
            return b""
        head = self._heads.feed(data)
        while head is not None:
            answer = self._parse(head)
            rest = self._heads.take_rest()
            if answer.status >= 200:
                self.answer = answer
                return self._begin_body(answer, rest)
            self._on_interim(answer)
            head = self._heads.feed(rest)
        return b""

    def _parse(self, head: bytes) -> Answer:
        """Services repeat themselves: the same bytes are the same answer, which is never changed."""
        answer, method = self._last_answer, self._method
        if answer is None or head != self._last_head or method != self._last_method:
            answer = parse_answer(head, method)
            self._last_head, self._last_method, self._last_answer = head, method, answer
        return answer

    def end(self) -> bool:
        """The upstream ended its stream in order: whether that completes the answer."""
        if self.answer is not None and not self.is_done:
            framing = self.answer.framing
            self.is_done = framing.length is None and not framing.chunked
        return self.is_done

    @property
    def may_be_reused(self) -> bool:
        """Whether the connection may carry another request."""
        return self.is_done and not self.has_excess and self.answer is not None and not self.answer.close

    def _begin_body(self, answer: Answer, rest: bytes) -> bytes:
        length = answer.framing.length
        if length is not None and len(rest) == length:  # the common case: head and body in one piece
            self.is_done = True
            return rest
        decoder = build_decoder(answer.framing)
        if decoder.done:
            self.is_done = self.has_excess = True
            return b""
        self._decoder = decoder
        return self._feed_body(decoder, rest) if rest else b""

    def _feed_body(self, decoder: Decoder, data: bytes) -> bytes:
        try:
            body, rest = decoder.feed(data)
        except MessageError as exc:
            raise upstream_invalid(exc.detail) from exc
        if decoder.done:
            self.is_done = True
            self._decoder = None
            self.has_excess = bool(rest)
        return body

    def _on_interim(self, answer: Answer) -> None:
        self._interim_count += 1
        if self._interim_count > MAX_INTERIM:
            raise upstream_invalid("the service sent too many interim answers", "interim_answers")
        if answer.status != 100:
            self.interim = (*self.interim, answer)
