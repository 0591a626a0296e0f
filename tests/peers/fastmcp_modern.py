"""A small server on FastMCP 4, which speaks both eras.

stdio, or streamable HTTP at `/mcp` with `--http PORT`, or the older HTTP+SSE at `/sse` with
`--sse PORT`.
"""

import argparse
import asyncio

from fastmcp import FastMCP

import listening

server = FastMCP("fastmcp-modern", version="1.2.3")


@server.tool(annotations={"readOnlyHint": True})
def add(a: int, b: int) -> int:
    """Adds two whole numbers."""
    return a + b


@server.tool(annotations={"readOnlyHint": True})
async def wait(seconds: float) -> str:
    """Answers after so many seconds."""
    await asyncio.sleep(seconds)
    return "waited"


@server.tool(annotations={"readOnlyHint": True})
def fail(reason: str = "asked to") -> str:
    """Always fails, inside a good answer."""
    raise ValueError(reason)


@server.prompt
def greet(name: str) -> str:
    """Greets somebody."""
    return f"Say hello to {name}."


@server.resource("note://one")
def note() -> str:
    """One note."""
    return "a note"


async def serve(transport: str, port: int) -> None:
    listening.end_with_parent()
    listening.tell_sessions()
    listener = listening.bind("127.0.0.1", port)
    listening.announce(listener)
    await server.run_http_async(
        show_banner=False, transport=transport, log_level="warning", sockets=[listener]
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--http", type=int, metavar="PORT", help="0 takes a free one and prints it")
    where.add_argument("--sse", type=int, metavar="PORT", help="likewise, with the older transport")
    options = parser.parse_args()
    if options.http is not None:
        await serve("http", options.http)
    elif options.sse is not None:
        await serve("sse", options.sse)
    else:
        await server.run_stdio_async(show_banner=False)


asyncio.run(main())
