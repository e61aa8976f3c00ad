"""The record layer of a finished handshake: ciphertext in, plaintext out, and the other way round. Hot.

Over pyOpenSSL's own methods one small exchange costs about 8 us, a third of what a whole call may cost;
each of them allocates a buffer and asks after four kinds of trouble. :class:`DirectRecords` calls the same
five OpenSSL functions through the binding that pyOpenSSL itself uses (``SSL._lib``) into one buffer for all
connections: about 3 us. That binding is not public, so :func:`build_records` takes it only if every name is
where it is expected, and :class:`PublicRecords` does the same work otherwise; all tests run over both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from OpenSSL import SSL

from sidecar.errors import UnavailableError
from sidecar.tls.context import explain

PLAINTEXT_BYTES: Final = 16384
"""The most that one record carries (RFC 8446, 5.1)."""
RECORD_OVERHEAD_BYTES: Final = 22
"""Header 5, content type 1, tag 16: the same for all suites of :data:`sidecar.tls.context.CIPHER_SUITES`."""
PIECE_BYTES: Final = PLAINTEXT_BYTES + RECORD_OVERHEAD_BYTES
"""How much is handed to OpenSSL at once: its memory BIOs never shrink, so that a large read or write would be kept for
as long as the connection lives. One full record, so that pieces and records stay in step."""
BUFFER_BYTES: Final = 2 * PIECE_BYTES

_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)
_FUNCTIONS: Final = ("SSL_read", "SSL_write", "SSL_get_error", "BIO_read", "BIO_write")
_CONSTANTS: Final = ("SSL_ERROR_WANT_READ", "SSL_ERROR_ZERO_RETURN")
_POINTERS: Final = ("_ssl", "_into_ssl", "_from_ssl")

_raise_current_error: Any = getattr(SSL, "_raise_current_error", None)
IS_DIRECT: Final = (
    _ffi is not None
    and _raise_current_error is not None
    and all(hasattr(_lib, name) for name in (*_FUNCTIONS, *_CONSTANTS))
)
if IS_DIRECT:
    _SSL_read, _SSL_write, _SSL_get_error, _BIO_read, _BIO_write = (
        getattr(_lib, name) for name in _FUNCTIONS
    )
    _WANT_READ, _ZERO_RETURN = (getattr(_lib, name) for name in _CONSTANTS)


class Scratch:
    """The buffer into which all connections of one event loop are read, one after the other; never from two threads."""

    __slots__ = ("memory", "view")

    def __init__(self) -> None:
        self.memory: Any = None
        self.view: Any = b""
        if IS_DIRECT:
            self.memory = _ffi.new("char[]", BUFFER_BYTES)
            self.view = _ffi.buffer(self.memory)


class Records(Protocol):
    """The two directions of one connection.

    ``has_news`` says that after a :meth:`decrypt` there is more to look at than plaintext: ``is_ended``,
    the peer's close_notify, after which nothing it sends counts; or :meth:`take_reply`.
    """

    has_news: bool
    is_ended: bool

    def decrypt(self, data: bytes) -> bytes:
        """The plaintext of all records that ``data`` completes. :class:`UnavailableError` for a broken one."""
        ...

    def encrypt(self, data: bytes) -> bytes:
        """``data``, which is not empty, as records, after what else OpenSSL has to send. UnavailableError."""
        ...

    def take_reply(self) -> bytes:
        """What OpenSSL has to send of its own accord: key updates, alerts. Resets ``has_news`` but for the end."""
        ...

    def close(self) -> bytes:
        """The close_notify, with all that has to go before it. Empty if the connection is beyond that."""
        ...


def build_records(connection: SSL.Connection, scratch: Scratch) -> Records:
    """The record layer of ``connection``, which has finished its handshake and holds no undigested byte."""
    if IS_DIRECT and all(hasattr(connection, name) for name in _POINTERS):
        return DirectRecords(connection, scratch)
    return PublicRecords(connection)


class _ColdRecords:
    """What is rare, over public methods."""

    __slots__ = ("_connection", "has_news", "is_ended")

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        self.has_news = False
        self.is_ended = False

    def take_reply(self) -> bytes:
        self.has_news = self.is_ended
        return drain(self._connection)

    def close(self) -> bytes:
        try:
            self._connection.shutdown()
        except SSL.Error:
            pass
        return drain(self._connection)


def drain(connection: SSL.Connection) -> bytes:
    """All that OpenSSL wants sent; empty if there is nothing."""
    parts = []
    try:
        while True:
            parts.append(connection.bio_read(BUFFER_BYTES))
    except SSL.Error:
        return b"".join(parts)


class PublicRecords(_ColdRecords):
    """Over pyOpenSSL's documented methods only."""

    __slots__ = ()

    def decrypt(self, data: bytes) -> bytes:
        connection, parts = self._connection, []
        try:
            for place in range(0, len(data), PIECE_BYTES):
                connection.bio_write(data[place : place + PIECE_BYTES])
                try:
                    while True:
                        parts.append(connection.recv(PLAINTEXT_BYTES))
                except SSL.WantReadError:
                    pass
        except SSL.ZeroReturnError:
            self.is_ended = True
        except SSL.Error as exc:
            raise UnavailableError(f"TLS failed: {explain(exc)}") from exc
        self.has_news = True  # there is no cheap way to ask
        return b"".join(parts)

    def encrypt(self, data: bytes) -> bytes:
        connection, parts = self._connection, []
        try:
            for place in range(0, len(data), PLAINTEXT_BYTES):
                connection.sendall(data[place : place + PLAINTEXT_BYTES])
                parts.append(drain(connection))
        except SSL.Error as exc:
            raise UnavailableError(f"TLS failed: {explain(exc)}") from exc
        return b"".join(parts)


class DirectRecords(_ColdRecords):
    """Over OpenSSL's functions themselves.

    ``_left_bytes`` is how much of what was handed to OpenSSL no plaintext has accounted for. At 0
    everything has been read and asking again, only to hear "nothing", is spared. It never is too small:
    what brings no plaintext (a key update, padding) is never subtracted, and then OpenSSL is asked until it
    says so.
    """

    __slots__ = ("_from_ssl", "_into_ssl", "_left_bytes", "_memory", "_ssl", "_view")

    def __init__(self, connection: SSL.Connection, scratch: Scratch) -> None:
        super().__init__(connection)
        # INVARIANT: pointers are used only while self._connection, which owns them, is alive.
        self._ssl: Any
        self._into_ssl: Any
        self._from_ssl: Any
        self._ssl, self._into_ssl, self._from_ssl = (getattr(connection, name) for name in _POINTERS)
        self._memory = scratch.memory
        self._view = scratch.view
        self._left_bytes = 0

    def decrypt(self, data: bytes) -> bytes:
        size = len(data)
        if size > PIECE_BYTES:
            return self._decrypt_pieces(data)
        if _BIO_write(self._into_ssl, data, size) != size:
            raise UnavailableError("TLS failed: no memory")
        count: int = _SSL_read(self._ssl, self._memory, BUFFER_BYTES)
        left_bytes = self._left_bytes + size
        # INVARIANT: the view is cut only at a positive count; beyond it lie other connections' bytes.
        if count > 0 and left_bytes == count + RECORD_OVERHEAD_BYTES:
            self._left_bytes = 0
            plaintext: bytes = self._view[:count]
            return plaintext
        parts: list[bytes] = []
        self._read_all(count, left_bytes, parts.append)
        return b"".join(parts)

    def encrypt(self, data: bytes) -> bytes:
        size = len(data)
        if size > PLAINTEXT_BYTES:
            return self._encrypt_pieces(data)
        if _SSL_write(self._ssl, data, size) != size:
            raise self._failure()
        count = _BIO_read(self._from_ssl, self._memory, BUFFER_BYTES)
        if 0 < count < BUFFER_BYTES:
            ciphertext: bytes = self._view[:count]
            return ciphertext
        return self._take_written(count)

    def _decrypt_pieces(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        start = _ffi.from_buffer(data)
        for place in range(0, len(data), PIECE_BYTES):
            size = min(PIECE_BYTES, len(data) - place)
            if _BIO_write(self._into_ssl, start + place, size) != size:
                raise UnavailableError("TLS failed: no memory")
            count = _SSL_read(self._ssl, self._memory, BUFFER_BYTES)
            self._read_all(count, self._left_bytes + size, parts.append)
            if self.is_ended:
                break
        return b"".join(parts)

    def _read_all(self, count: int, left_bytes: int, keep: Callable[[bytes], None]) -> None:
        """Takes what the first SSL_read gave, and goes on until there is no more."""
        while count > 0:
            keep(self._view[:count])
            left_bytes -= count + RECORD_OVERHEAD_BYTES
            if left_bytes == 0:
                self._left_bytes = 0
                return
            count = _SSL_read(self._ssl, self._memory, BUFFER_BYTES)
        self._left_bytes = left_bytes
        error = _SSL_get_error(self._ssl, count)
        if error == _ZERO_RETURN:
            self.is_ended = True
        elif error != _WANT_READ:
            raise self._failure()
        self.has_news = True

    def _encrypt_pieces(self, data: bytes) -> bytes:
        parts = []
        start = _ffi.from_buffer(data)
        for place in range(0, len(data), PLAINTEXT_BYTES):
            size = min(PLAINTEXT_BYTES, len(data) - place)
            if _SSL_write(self._ssl, start + place, size) != size:
                raise self._failure()
            parts.append(self._take_written(_BIO_read(self._from_ssl, self._memory, BUFFER_BYTES)))
        return b"".join(parts)

    def _take_written(self, count: int) -> bytes:
        """All that lies in the outgoing BIO, of which ``count`` bytes have just been read into the buffer."""
        parts = []
        while count > 0:
            parts.append(self._view[:count])
            count = _BIO_read(self._from_ssl, self._memory, BUFFER_BYTES) if count == BUFFER_BYTES else 0
        return b"".join(parts)

    def take_reply(self) -> bytes:
        self.has_news = self.is_ended
        return self._take_written(_BIO_read(self._from_ssl, self._memory, BUFFER_BYTES))

    def _failure(self) -> UnavailableError:
        """What OpenSSL says went wrong; its list of errors, which is one for the whole thread, is empty afterwards."""
        try:
            _raise_current_error()
        except SSL.Error as exc:
            return UnavailableError(f"TLS failed: {explain(exc)}")
        return UnavailableError("TLS failed")
