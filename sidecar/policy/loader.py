"""Loads a policy file: all of it or none of it, and every mistake at once, each with line and column."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import cast

from sidecar.errors import PolicyError
from sidecar.policy.document import MAX_FILE_BYTES, Listing, Node, Problems, Table, Text, read_document
from sidecar.policy.model import ENDING_KINDS, KINDS, Identity, Kind, Owner, Policy, Service
from sidecar.policy.reader import Reader
from sidecar.policy.rules import read_denials, read_scopes
from sidecar.policy.values import (
    choice,
    parse_date,
    parse_end,
    parse_id,
    parse_line,
    parse_name,
    parse_rate,
    parse_url,
)

_REQUIRED = ("version", "owners", "scopes", "identities")
_OPTIONAL = ("service", "engine", "deny")


def load_policy(path: Path) -> Policy:
    """The policy in the file ``path``.

    Raises :class:`PolicyError`: one line for each mistake, or why it cannot be read. Never waits: what is no
    regular file is refused.
    """
    try:
        # Without O_NONBLOCK the opening of a named pipe would wait for its other end.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PolicyError([f"{path}: the policy is not a regular file"])
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise PolicyError([f"{path}: the policy file cannot be read: {reason}"]) from exc
    return parse_policy(data, str(path))


def parse_policy(data: bytes, name: str) -> Policy:
    """The policy that ``data`` spells. Raises :class:`PolicyError`, its problems led by ``name``."""
    problems = Problems(name)
    document = read_document(data, problems)
    policy = None if document is None else _read_policy(Reader(problems), document, data)
    problems.raise_any()
    if policy is None:  # cannot be: whatever gives no policy has noted why
        raise PolicyError([f"{name}: the policy cannot be read"])
    return policy


def _read_policy(reader: Reader, document: Node, data: bytes) -> Policy | None:
    entries = reader.table(document, "the policy", required=_REQUIRED, optional=_OPTIONAL)
    if entries is None:
        return None
    reader.value(entries.get("version"), "version", choice("1"))
    owners = _read_owners(reader, entries["owners"]) if "owners" in entries else {}
    scopes = read_scopes(reader, entries["scopes"]) if "scopes" in entries else {}
    # Names count as known even where what they name has mistakes: one slip is one problem.
    identities = _read_identities(
        reader, entries.get("identities"), _keys(entries, "owners"), _keys(entries, "scopes")
    )
    return Policy(
        sha256="sha256:" + hashlib.sha256(data).hexdigest(),
        owners=owners,
        scopes=scopes,
        identities=identities,
        denials=read_denials(reader, entries.get("deny"), frozenset(identities)),
        service=_read_service(reader, entries.get("service"), owners, _keys(entries, "owners")),
        engine=_read_engine(reader, entries.get("engine")),
    )


def _keys(entries: dict[str, Node], section: str) -> Collection[str] | None:
    """The names that a section defines; None, which lets all pass, where the section itself is amiss."""
    node = entries.get(section)
    return node.entries.keys() if isinstance(node, Table) else None


def _read_owners(reader: Reader, node: Node) -> dict[str, Owner]:
    owners = {}
    for name, body in reader.named(node, "owners", parse_name):
        entries = reader.table(body, f"owner {name!r}", required=("contact",), optional=("review_by",))
        if entries is None:
            continue
        contact = reader.value(entries.get("contact"), "contact", parse_line) or ""
        owners[name] = Owner(name, contact, reader.value(entries.get("review_by"), "review_by", parse_date))
    return owners


def _read_identities(
    reader: Reader, node: Node | None, owners: Collection[str] | None, scopes: Collection[str] | None
) -> dict[str, Identity]:
    identities: dict[str, Identity] = {}
    lines: dict[str, int] = {}
    for item in () if node is None else reader.items(node, "identities"):
        entries = reader.table(
            item,
            "the identity",
            required=("id", "owner", "kind", "scopes"),
            optional=("environment", "purposes", "rate", "expires"),
        )
        identity = None if entries is None else _read_identity(reader, entries, owners, scopes)
        if identity is None:
            continue
        if identity.id_text in identities:
            first = lines[identity.id_text]
            reader.refuse(
                item.at, f"{identity.id_text!r} is registered twice, first in line {first}; remove one"
            )
            continue
        identities[identity.id_text] = identity
        lines[identity.id_text] = item.at.line
    return identities


def _read_identity(
    reader: Reader, entries: dict[str, Node], owners: Collection[str] | None, scopes: Collection[str] | None
) -> Identity | None:
    """None only without an id; after other mistakes a part of it is empty, and the file is refused anyway."""
    spiffe_id = reader.value(entries.get("id"), "id", parse_id)
    owner = reader.value(entries.get("owner"), "owner", reader.known(owners, "owner"))
    kind = reader.value(entries.get("kind"), "kind", choice(*KINDS))
    named = reader.values(entries.get("scopes"), "scopes", reader.known(scopes, "scope"))
    purposes = reader.values(entries.get("purposes"), "purposes", parse_name)
    environment = reader.value(entries.get("environment"), "environment", parse_name)
    rate = reader.value(entries.get("rate"), "rate", parse_rate)
    expires_s = reader.value(entries.get("expires"), "expires", parse_end)
    if kind in ENDING_KINDS and "expires" not in entries:
        reader.refuse(entries["kind"].at, f"an identity of kind {kind} needs the key 'expires'")
    if spiffe_id is None:
        return None
    return Identity(
        spiffe_id,
        str(spiffe_id),
        owner or "",
        cast(Kind, kind),
        named,
        environment,
        frozenset(purposes) if "purposes" in entries else None,
        rate,
        expires_s,
    )


def _read_service(
    reader: Reader, node: Node | None, owners: dict[str, Owner], names: Collection[str] | None
) -> Service | None:
    if node is None:
        return None
    entries = reader.table(node, "service", optional=("owner", "contact", "docs"))
    if entries is None:
        return None
    if "owner" not in entries and "contact" not in entries:
        reader.refuse(node.at, "service says nobody to ask; it needs the key 'owner' or 'contact'")
    owner = reader.value(entries.get("owner"), "owner", reader.known(names, "owner"))
    contact = reader.value(entries.get("contact"), "contact", parse_line)
    if contact is None and owner in owners:
        contact = owners[owner].contact
    return Service(contact or "", owner, reader.value(entries.get("docs"), "docs", parse_url))


def _read_engine(reader: Reader, node: Node | None) -> str:
    if isinstance(node, (Table, Listing)) or (isinstance(node, Text) and node.text in ("cedar", "opa")):
        reader.refuse(node.at, "engines other than builtin are not built yet; remove the key")
        return "builtin"
    return reader.value(node, "engine", choice("builtin")) or "builtin"
