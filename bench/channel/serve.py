"""``python -m channel.serve ADDRESS MAPPINGS``: lookups by gRPC and by HTTP, until SIGTERM.

MAPPINGS is a JSON object, EID -> what ``wgmap resolve --json`` says of it. Prints "ready".
"""

import asyncio
import ipaddress
import json
import sys
from typing import Any

import grpc
import lookup_pb2
import lookup_pb2_grpc
from aiohttp import web

from wgmap.signals import ending
from wgmap.wg.keys import PublicKey

GRPC_PORT = 14342
HTTP_PORT = 14343


class _Map(lookup_pb2_grpc.MapServicer):  # type: ignore[misc]
    """Answers from a table that was encoded beforehand, as the responder does."""

    def __init__(self, mappings: dict[str, Any]) -> None:
        self._mappings = {
            ipaddress.ip_address(eid).packed: _message(eid, row) for eid, row in mappings.items()
        }

    async def Lookup(self, request: Any, context: Any) -> Any:  # noqa: N802  # gRPC's name for it
        """Answer one question."""
        found = self._mappings.get(request.eid)
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no mapping")
        return found


def _message(eid: str, row: dict[str, Any]) -> Any:
    locators = [
        lookup_pb2.Locator(
            address=ipaddress.ip_address(one["address"]).packed,
            port=one["port"], priority=one["priority"], weight=one["weight"],
        )
        for one in row["locators"]
    ]  # fmt: skip
    return lookup_pb2.Mapping(
        prefixes=[eid], key=PublicKey.parse(row["key"]), locators=locators,
        ttl_s=row["ttl_s"], version=row["version"],
    )  # fmt: skip


def _http(mappings: dict[str, Any]) -> web.Application:
    texts = {eid: json.dumps(row).encode() for eid, row in mappings.items()}

    async def lookup(request: web.Request) -> web.Response:
        text = texts.get(request.match_info["eid"])
        if text is None:
            raise web.HTTPNotFound
        return web.Response(body=text, content_type="application/json")

    application = web.Application()
    application.router.add_get("/lookup/{eid}", lookup)
    return application


async def main(address: str, mappings: dict[str, Any]) -> None:
    """Serve until SIGTERM or SIGINT."""
    server = grpc.aio.server()
    lookup_pb2_grpc.add_MapServicer_to_server(_Map(mappings), server)
    server.add_insecure_port(f"[{address}]:{GRPC_PORT}")
    await server.start()
    runner = web.AppRunner(_http(mappings), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, HTTP_PORT).start()
    print("ready", flush=True)
    over = asyncio.Event()
    with ending(over.set):
        await over.wait()
    await runner.cleanup()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
