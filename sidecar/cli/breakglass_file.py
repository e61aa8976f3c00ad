"""Order files, and the way of an order to the running sidecar."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from sidecar.breakglass.order import MAX_ORDER_BYTES
from sidecar.cli.admin_client import admin_call
from sidecar.errors import ConfigurationError, OrderRefused, SidecarError


def read_order_file(file: Path) -> bytes:
    """An order file, or a pipe with one. Longer than any order is refused without reading on."""
    with file.open("rb") as stream:
        data = stream.read(MAX_ORDER_BYTES + 1)
    if len(data) > MAX_ORDER_BYTES:
        raise OrderRefused("too-large", f"{str(file)!r} has more than {MAX_ORDER_BYTES} bytes")
    return data


def write_order_file(path: Path, data: bytes) -> None:
    """A new file. Raises ConfigurationError when there is one."""
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise ConfigurationError(f"{str(path)!r} exists; choose another name or move it away") from None


def replace_order_file(path: Path, data: bytes) -> None:
    """Puts ``data`` into the file's place in one step."""
    if not path.is_file():
        raise ConfigurationError(f"{str(path)!r} is no regular file; give --out")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_order_file(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def submit_order(data: bytes) -> dict[str, Any]:
    """The running sidecar's answer to an order. Raises OrderRefused with its code in the message."""
    try:
        answer = admin_call("POST", "/v1/orders", data)
    except OrderRefused as exc:
        raise OrderRefused(exc.code, f"refused, {exc.code}: {exc}") from exc
    if not isinstance(answer, dict):
        raise SidecarError("the running sidecar's answer is none to an order")
    return answer
