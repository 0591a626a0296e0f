"""A small server on the Python SDK before 2.0, which knows only `initialize` and sessions.

stdio, or streamable HTTP at `/mcp` with `--http PORT`, or the older HTTP+SSE at `/sse` with
`--sse PORT`.
"""

import argparse
import asyncio

import uvicorn
from mcp.server.fastmcp import FastMCP
from mcp.types import ToolAnnotations

import listening

READ_ONLY = ToolAnnotations(readOnlyHint=True)
server = FastMCP("fastmcp-legacy")


@server.tool(annotations=READ_ONLY)
def add(a: int, b: int) -> int:
    """Adds two whole numbers."""
    return a + b


@server.tool(annotations=READ_ONLY)
async def wait(seconds: float) -> str:
    """Answers after so many seconds."""
    await asyncio.sleep(seconds)
    return "waited"


@server.tool(annotations=READ_ONLY)
def fail(reason: str = "asked to") -> str:
    """Always fails, inside a good answer."""
    raise ValueError(reason)


async def serve(app, port: int) -> None:
    listening.end_with_parent()
    listening.tell_sessions()
    listener = listening.bind("127.0.0.1", port)
    listening.announce(listener)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    await uvicorn.Server(config).serve(sockets=[listener])


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--http", type=int, metavar="PORT", help="0 takes a free one and prints it")
    where.add_argument("--sse", type=int, metavar="PORT", help="likewise, with the older transport")
    options = parser.parse_args()
    if options.http is not None:
        await serve(server.streamable_http_app(), options.http)
    elif options.sse is not None:
        await serve(server.sse_app(), options.sse)
    else:
        await server.run_stdio_async()


asyncio.run(main())
