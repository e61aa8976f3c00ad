"""Asks the running sidecar over its admin socket. Standard library only: ``probe`` must be quick."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.admin.address import open_address
from sidecar.errors import ConfigurationError, OrderRefused, ProblemsError, SidecarError, UnavailableError
from sidecar.settings import find_admin_socket

TIMEOUT_S = 10.0
LONGEST_ANSWER_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sidecar said, undecoded."""

    status: int
    content_type: str
    body: bytes


def admin_exchange(
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """One request and its answer, whatever its status. ``timeout_s`` holds for each wait.

    Raises :class:`ConfigurationError` when the socket's place cannot be read from ``environ``, and
    :class:`UnavailableError` when nobody answers there or the sidecar does not let us in.
    """
    place = find_admin_socket(environ)
    connection = _AdminConnection(place, timeout_s)
    headers = {} if body is None else {"Content-Type": "application/octet-stream"}
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        data = response.read(LONGEST_ANSWER_BYTES + 1)
    except (FileNotFoundError, ConnectionRefusedError) as exc:
        raise UnavailableError(
            f"no sidecar answers at {str(place)!r}; "
            "give SIDECAR_STATE_DIR or SIDECAR_ADMIN the value that the running one has"
        ) from exc
    except (PermissionError, ConnectionError) as exc:
        # RemoteDisconnected is a ConnectionError: a peer that may not call is cut off without an answer.
        raise UnavailableError(
            f"the sidecar at {str(place)!r} does not let uid {os.geteuid()} in; "
            "call as root, as its own user, or with its admin group as primary group"
        ) from exc
    except TimeoutError as exc:
        raise UnavailableError(
            f"the sidecar at {str(place)!r} gave no answer within {timeout_s:g} s"
        ) from exc
    except (OSError, http.client.HTTPException) as exc:
        raise UnavailableError(f"the admin socket {str(place)!r} failed: {exc!r}") from exc
    finally:
        connection.close()
    if len(data) > LONGEST_ANSWER_BYTES:
        raise UnavailableError(f"the answer of {str(place)!r} is longer than {LONGEST_ANSWER_BYTES} bytes")
    if response.length:  # read() with a bound does not complain by itself
        raise UnavailableError(f"the answer of {str(place)!r} ends too early")
    return Answer(response.status, response.headers.get_content_type(), data)


def admin_request(
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    timeout_s: float = TIMEOUT_S,
) -> tuple[int, Any]:
    """Status and decoded JSON of one request; raises as :func:`admin_exchange`, and when it is no JSON."""
    answer = admin_exchange(method, path, body, environ=environ, timeout_s=timeout_s)
    try:
        return answer.status, json.loads(answer.body)
    except (ValueError, RecursionError) as exc:
        raise UnavailableError(
            f"the admin socket answered {answer.status} with something that is no JSON"
        ) from exc


def admin_call(
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    timeout_s: float = TIMEOUT_S,
) -> Any:
    """The decoded JSON of a request that succeeded; a refused one raises the error with the right exit code.

    403 and 413 are :class:`OrderRefused` (3), 422 a :class:`ConfigurationError` (2), anything else exits 1.
    """
    status, document = admin_request(method, path, body, environ=environ, timeout_s=timeout_s)
    if status == 200:
        return document
    members = document if isinstance(document, dict) else {}
    reason = str(members.get("reason", status))
    detail = str(members.get("detail", "the sidecar gave no reason"))
    problems = members.get("problems")
    if status in (403, 413):
        raise OrderRefused(reason, detail)
    if status == 422 and isinstance(problems, list) and problems:
        raise ProblemsError([str(problem) for problem in problems])
    if status == 422:
        raise ConfigurationError(detail)
    if status in (429, 503):
        raise UnavailableError(detail)
    raise SidecarError(detail)


class _AdminConnection(http.client.HTTPConnection):
    """HTTP/1.1 over the Unix socket at ``place``."""

    def __init__(self, place: Path, timeout_s: float) -> None:
        super().__init__("sidecar", timeout=timeout_s)
        self._place = place
        self._timeout_s = timeout_s

    def connect(self) -> None:
        with open_address(self._place) as address:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            link.settimeout(self._timeout_s)
            try:
                link.connect(address)
            except BaseException:
                link.close()
                raise
        self.sock = link
