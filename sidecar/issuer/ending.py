"""When a process is to end: a signal, or the end of standard input, and a wait that either cuts short."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Protocol


class Ending(Protocol):
    """Says when to end."""

    def wait(self, seconds: float) -> bool:
        """Whether to end; known at once if it is so, else after ``seconds``."""
        ...


class SignalledEnding:
    """Ends by SIGTERM or SIGINT; with ``tied`` by SIGTERM, or when that descriptor has reached its end.

    A parent that holds the other end of a pipe takes its child along however it ends itself: the kernel
    closes the pipe for a process that was killed, too. Then an interrupt at the terminal, which reaches both,
    is the parent's to act on.
    """

    def __init__(self, tied: int | None = None) -> None:
        self._tied = tied
        self._ended = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._previous = [
            (signal.SIGTERM, signal.signal(signal.SIGTERM, self._end)),
            (signal.SIGINT, signal.signal(signal.SIGINT, self._end if tied is None else signal.SIG_IGN)),
        ]

    def wait(self, seconds: float) -> bool:
        """See :class:`Ending`."""
        watched = [self._wake_read] if self._tied is None else [self._wake_read, self._tied]
        if not self._ended:
            ready, _, _ = select.select(watched, [], [], seconds)
            if self._tied in ready and os.read(self._tied, 4096) == b"":
                self._ended = True
        return self._ended

    def close(self) -> None:
        """Puts the handlers back that were there before."""
        for number, handler in self._previous:
            signal.signal(number, handler)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def __enter__(self) -> SignalledEnding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ended = True
        try:
            os.write(self._wake_write, b"!")  # a select that has just begun would not notice the flag
        except BlockingIOError:
            pass
