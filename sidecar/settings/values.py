"""What a setting's text may say: one parser per kind of value. Pure.

Every parser gives the value or raises :class:`ConfigurationError` with a message that says what was expected;
the loader puts the variable's name in front. Nothing is guessed: a bare number is no duration, ``yes`` is no
boolean, and no name is ever looked up.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sidecar.errors import ConfigurationError

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):(0|[1-9][0-9]{0,4})")
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_DURATION = re.compile(r"(0|[1-9][0-9]{0,8})(ms|s|m|h)")
_SIZE = re.compile(r"([1-9][0-9]{0,11})(B|KiB|MiB|GiB)")
_COUNT = re.compile(r"0|[1-9][0-9]{0,9}")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where to listen: an IP address or ``localhost``, and a port. Port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The local service. ``http`` has host and port, no path; ``unix`` (HTTP/1.1 over it) has only a path."""

    kind: Literal["http", "unix"]
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.kind == "unix" else f"http://{HostPort(self.host, self.port)}"

    @property
    def is_local(self) -> bool:
        """Whether calls stay on this machine: a Unix socket, a literal loopback address, ``localhost``."""
        return self.kind == "unix" or is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class AuditPlaces:
    """Where the chained file goes (None: under the state directory) and the names of the copies behind it."""

    directory: Path | None
    sinks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value: the word for it in tables, and its parser."""

    word: str
    parse: Callable[[str], object]


def is_loopback(host: str) -> bool:
    """Whether ``host`` is ``localhost`` or a literal loopback address. No name is looked up."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def parse_bool(text: str) -> bool:
    """``true`` or ``false``, in any case; nothing else means either."""
    folded = text.lower()
    if folded not in ("true", "false"):
        raise ConfigurationError(f"{text!r} is neither true nor false")
    return folded == "true"


def parse_path(text: str) -> Path:
    """A path in the file system; it need not exist yet. Relative ones start at the working directory."""
    if text != text.strip() or not text.isprintable():
        raise ConfigurationError(
            f"{text!r} is not a path: it starts or ends with a space or has control characters"
        )
    return Path(text)


def parse_socket(text: str) -> Path:
    """The path in ``unix:/path``; it must be absolute, so that every command finds the same socket."""
    scheme, _, path = text.partition(":")
    if scheme != "unix" or not path.startswith("/") or path.endswith("/") or path.startswith("//"):
        raise ConfigurationError(f"{text!r} is not a Unix socket; write unix:/absolute/path")
    return parse_path(path)


def parse_host_port(text: str) -> HostPort:
    """``ADDRESS:PORT`` to listen on; IPv6 in brackets; the address is a literal one or ``localhost``."""
    host, port = _split_host_port(text, "write an IP address and a port, such as 0.0.0.0:8443 or [::]:8443")
    if host != "localhost" and not _is_address(host):
        raise ConfigurationError(
            f"{text!r} names a host; listen on an IP address or localhost, such as 0.0.0.0:8443"
        )
    return HostPort(host, port)


def parse_upstream(text: str) -> Upstream:
    """``http://host:port`` or ``unix:/path``.

    Whether the host is acceptable is a question for the loader (``SIDECAR_UNSAFE_UPSTREAM``); here it only
    has to be an address or a well-formed name. Nothing but host and port may be in the URL, and the user
    information of a refused one is never repeated.
    """
    if text.startswith("unix:"):
        return Upstream("unix", path=str(parse_socket(text)))
    scheme, separator, rest = text.partition("://")
    if separator and "@" in rest:
        raise ConfigurationError(
            "user information has no place in the upstream's URL; write http://host:port"
        )
    if separator and scheme in ("h2c", "tcp"):
        raise ConfigurationError(
            f"{scheme}:// upstreams are not built yet; use http://host:port or unix:/path"
        )
    if scheme != "http" or not separator:
        raise ConfigurationError(f"{text!r} is not an upstream; write http://host:port or unix:/path")
    hint = "write http://host:port with nothing behind the port"
    if any(mark in rest for mark in "/?#"):
        raise ConfigurationError(f"{text!r} has more than host and port; {hint}")
    host, port = _split_host_port(rest, hint)
    if port == 0 or not (_is_address(host) or _HOST_NAME.fullmatch(host)):
        raise ConfigurationError(f"{text!r} is not an upstream; {hint}")
    return Upstream("http", host=host, port=port)


def parse_audit(text: str, sinks: tuple[str, ...]) -> AuditPlaces:
    """``file`` or ``file:/dir``, and the names of copies, separated by commas.

    The chained file is always written, named or not: copies come behind it and never replace it.
    """
    directory: Path | None = None
    names: list[str] = []
    for part in text.split(","):
        name, colon, path = part.strip().partition(":")
        if name in names:
            raise ConfigurationError(f"{name!r} is named twice")
        if name == "file":
            if colon and not path.startswith("/"):
                raise ConfigurationError(
                    f"{part.strip()!r} needs an absolute directory, such as file:/var/log/sidecar"
                )
            directory = parse_path(path) if colon else None
        elif colon or name not in sinks:
            raise ConfigurationError(
                f"{part.strip()!r} is not known; known are file, file:/dir, {', '.join(sinks)}"
            )
        names.append(name)
    return AuditPlaces(directory, tuple(name for name in names if name != "file"))


def duration(shortest: str, longest: str, *, off: bool = False) -> Kind:
    """Seconds as a float, from a number and a unit (``250ms``, ``15m``); None for ``off`` where allowed."""
    low, high = _bound(_DURATION, _SECONDS, shortest), _bound(_DURATION, _SECONDS, longest)

    def parse(text: str) -> float | None:
        if off and text in ("off", "none"):
            return None
        value = _measure(_DURATION, _SECONDS, text)
        if value is None:
            raise ConfigurationError(
                f"{text!r} is not a duration; write a number and ms, s, m or h, such as 30s"
            )
        return _within(text, value, low, high, shortest, longest)

    return Kind(f"duration, {shortest} to {longest}" + (", or `off`" if off else ""), parse)


def size(smallest: str, largest: str, *, off: bool = False) -> Kind:
    """Bytes, from a number and a unit (``512B``, ``8KiB``, ``1GiB``); None for ``off`` where allowed."""
    low, high = _bound(_SIZE, _BYTES, smallest), _bound(_SIZE, _BYTES, largest)

    def parse(text: str) -> int | None:
        if off and text in ("off", "none"):
            return None
        value = _measure(_SIZE, _BYTES, text)
        if value is None:
            raise ConfigurationError(
                f"{text!r} is not a size; write a number and B, KiB, MiB or GiB, such as 8KiB"
            )
        return int(_within(text, value, low, high, smallest, largest))

    return Kind(f"size, {smallest} to {largest}" + (", or `off`" if off else ""), parse)


def count(least: int, most: int, word: str = "count") -> Kind:
    """A plain number between two bounds, both included."""

    def parse(text: str) -> int:
        if not _COUNT.fullmatch(text):
            raise ConfigurationError(f"{text!r} is not a plain number from {least} to {most}")
        return int(_within(text, int(text), least, most, str(least), str(most)))

    return Kind(f"`{least}`" if least == most else f"{word}, {least} to {most}", parse)


def choice(*names: str) -> Kind:
    """One of a closed set of names."""

    def parse(text: str) -> str:
        if text not in names:
            raise ConfigurationError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return Kind("one of " + ", ".join(f"`{name}`" for name in names), parse)


def _within(text: str, value: float, low: float, high: float, lowest: str, highest: str) -> float:
    if not low <= value <= high:
        raise ConfigurationError(f"{text!r} is out of range; it must be from {lowest} to {highest}")
    return value


def _bound(pattern: re.Pattern[str], units: Mapping[str, float], text: str) -> float:
    value = _measure(pattern, units, text)
    if value is None:
        raise ValueError(f"the bound {text!r} does not parse")
    return value


def _measure(pattern: re.Pattern[str], units: Mapping[str, float], text: str) -> float | None:
    found = pattern.fullmatch(text)
    return None if found is None else int(found[1]) * units[found[2]]


def _split_host_port(text: str, hint: str) -> tuple[str, int]:
    found = _HOST_PORT.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"{text!r} is not HOST:PORT; {hint}")
    port = int(found[2])
    if port > 65535:
        raise ConfigurationError(f"{text!r} has a port above 65535; {hint}")
    return found[1].strip("[]"), port


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
