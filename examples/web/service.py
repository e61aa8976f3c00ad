"""The shop's front end: what it shows comes from the orders service, which it calls as ``spiffe://demo.test/web``.

It shows both ends of a call in one place: a sidecar in front says who calls it, and its own SVID says to the
next sidecar who it is. (A later version of the sidecar makes the outgoing call for it.)

::

    python -m examples.web.service --listen 127.0.0.1:8080 --svid DIR --orders https://localhost:8443
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from examples.orders.call import WrongPeerError, build_context, call
from examples.orders.service import caller_of

ORDERS_ID = "spiffe://demo.test/orders"


def ask_orders(svid: Path, orders: str, number: str) -> tuple[int, str]:
    """Status and body of one call to the orders service. Raises OSError, HTTPException, WrongPeerError.

    The context is built anew for each call: an SVID is replaced every half hour, and a file that is read each
    time cannot be the old one. A service with many calls would watch the files instead.
    """
    status, _, body = call("GET", f"{orders}/orders/{number}", build_context(svid), ORDERS_ID)
    return status, body


def build_app(svid: Path, orders: str) -> web.Application:
    """The application; ``svid`` is the directory with its SVID, ``orders`` the URL of the other sidecar."""

    async def basket(request: web.Request) -> web.Response:
        """``GET /basket/{id}``"""
        try:
            status, body = await asyncio.to_thread(ask_orders, svid, orders, request.match_info["id"])
        except (OSError, http.client.HTTPException, WrongPeerError):
            raise web.HTTPBadGateway(text="the orders service cannot be reached\n") from None
        if status != 200:
            raise web.HTTPBadGateway(text=f"the orders service said {status}\n")
        answer = json.loads(body)
        return web.json_response(
            {"order": answer["order"], "caller": caller_of(request), "called_orders_as": answer["caller"]}
        )

    app = web.Application()
    app.router.add_get(r"/basket/{id:\d{1,18}}", basket)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="web", description="The shop's front end.")
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT")
    parser.add_argument("--svid", required=True, type=Path, metavar="DIR")
    parser.add_argument("--orders", required=True, metavar="URL", help="the sidecar of the orders service")
    arguments = parser.parse_args(argv)
    host, _, port = arguments.listen.rpartition(":")
    app = build_app(arguments.svid, arguments.orders.rstrip("/"))
    web.run_app(app, host=host, port=int(port), access_log=None, print=None)


if __name__ == "__main__":
    main()
