"""Orders over HTTP, kept in SQLite: the service that the demo and the other examples protect.

It has no login, no token and no TLS. It listens on loopback or on a Unix socket, where only a sidecar beside
it can reach it, and it reads who called from ``x-forwarded-client-cert``. That header is worth believing for
one reason only: whoever can connect here is the sidecar, and the sidecar removes every copy of it that a
caller sends.

::

    python examples/orders/service.py --listen unix:/run/orders/orders.sock
    python examples/orders/service.py --listen 127.0.0.1:8080 --database orders.db
"""

from __future__ import annotations

import argparse
import os
import sqlite3
from collections.abc import Sequence
from typing import Any

from aiohttp import web

DATABASE = web.AppKey("database", sqlite3.Connection)
MAX_BODY_BYTES = 64 * 1024
MAX_ITEM_CHARACTERS = 200

SEED = (
    (7, "inkwell", 2, "shipped"),
    (41, "desk lamp", 1, "paid"),
    (42, "towel", 1, "stuck"),
    (43, "notebook", 12, "paid"),
)


def open_database(path: str) -> sqlite3.Connection:
    """An open database with the table in place; a new one starts with four orders, number 42 among them."""
    database = sqlite3.connect(path, isolation_level=None)
    database.row_factory = sqlite3.Row
    database.execute(
        "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " item TEXT NOT NULL, quantity INTEGER NOT NULL, state TEXT NOT NULL)"
    )
    if database.execute("SELECT count(*) FROM orders").fetchone()[0] == 0:
        database.executemany("INSERT INTO orders (id, item, quantity, state) VALUES (?, ?, ?, ?)", SEED)
    return database


def caller_of(request: web.Request) -> str | None:
    """The SPIFFE ID of the caller as the sidecar proved it; ``None`` where no sidecar is in front.

    The header has exactly one element, ``By=...;Hash=...;URI=...``; a SPIFFE ID holds none of the characters
    that its grammar would have to quote.
    """
    header = request.headers.get("x-forwarded-client-cert", "")
    for pair in header.split(";"):
        key, _, value = pair.partition("=")
        if key.strip().lower() == "uri":
            return value
    return None


def answer(request: web.Request, body: dict[str, Any], status: int = 200) -> web.Response:
    """``body`` as JSON, with who asked for it."""
    return web.json_response({**body, "caller": caller_of(request)}, status=status)


# One connection and statements of some microseconds: short enough to run on the loop. A service with real
# queries would hand them to a thread.
def find_order(request: web.Request) -> dict[str, Any]:
    """The order that the path names; 404 without one. The route's pattern allows up to 18 digits."""
    number = int(request.match_info["id"])
    row = request.app[DATABASE].execute("SELECT * FROM orders WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise web.HTTPNotFound(text=f"no order {number}\n")
    return dict(row)


async def list_orders(request: web.Request) -> web.Response:
    """``GET /orders``"""
    rows = request.app[DATABASE].execute("SELECT * FROM orders ORDER BY id LIMIT 1000").fetchall()
    return answer(request, {"orders": [dict(row) for row in rows]})


async def get_order(request: web.Request) -> web.Response:
    """``GET /orders/{id}``"""
    return answer(request, {"order": find_order(request)})


async def create_order(request: web.Request) -> web.Response:
    """``POST /orders`` with ``{"item": text, "quantity": 1..1000}``"""
    try:
        body = await request.json()
    except ValueError as exc:
        raise web.HTTPBadRequest(text="the body is not JSON\n") from exc
    item = body.get("item") if isinstance(body, dict) else None
    quantity = body.get("quantity", 1) if isinstance(body, dict) else None
    if not isinstance(item, str) or not 0 < len(item) <= MAX_ITEM_CHARACTERS:
        raise web.HTTPUnprocessableEntity(text="item: some text is wanted\n")
    if type(quantity) is not int or not 1 <= quantity <= 1000:
        raise web.HTTPUnprocessableEntity(text="quantity: a number from 1 to 1000 is wanted\n")
    cursor = request.app[DATABASE].execute(
        "INSERT INTO orders (item, quantity, state) VALUES (?, ?, 'new')", (item, quantity)
    )
    order = {"id": cursor.lastrowid, "item": item, "quantity": quantity, "state": "new"}
    return answer(request, {"order": order}, status=201)


async def delete_order(request: web.Request) -> web.Response:
    """``DELETE /orders/{id}``: what nobody may do by policy, only under a break-glass grant."""
    order = find_order(request)
    request.app[DATABASE].execute("DELETE FROM orders WHERE id = ?", (order["id"],))
    return answer(request, {"deleted": order})


async def healthz(request: web.Request) -> web.Response:
    """``GET /healthz``: answers while the database does."""
    request.app[DATABASE].execute("SELECT 1").fetchone()
    return web.Response(text="ok\n")


def build_app(database: str = ":memory:") -> web.Application:
    """The application; its database is closed when it ends."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    connection = open_database(database)
    app[DATABASE] = connection

    async def close(_: web.Application) -> None:
        connection.close()

    app.on_cleanup.append(close)
    app.router.add_get("/orders", list_orders)
    app.router.add_post("/orders", create_order)
    app.router.add_get(r"/orders/{id:\d{1,18}}", get_order)
    app.router.add_delete(r"/orders/{id:\d{1,18}}", delete_order)
    app.router.add_get("/healthz", healthz)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="orders", description="Orders over HTTP, without any authentication."
    )
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT|unix:/PATH")
    parser.add_argument(
        "--database", default=":memory:", metavar="FILE", help="SQLite file; in memory without it"
    )
    arguments = parser.parse_args(argv)
    listen: str = arguments.listen
    app = build_app(arguments.database)
    if listen.startswith("unix:"):
        os.umask(
            0o117
        )  # the socket is for us and our group (the sidecar) and for nobody else, from its first moment
        web.run_app(app, path=listen.removeprefix("unix:"), access_log=None, print=None)
        return
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        parser.error(f"--listen: host:port or unix:/path is wanted, got {listen!r}")
    web.run_app(app, host=host.strip("[]"), port=int(port), access_log=None, print=None)


if __name__ == "__main__":
    main()
