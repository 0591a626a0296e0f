"""A small server on FastMCP 4, which speaks both eras: stdio, or HTTP at `/mcp` with `--http PORT`."""

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


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http", type=int, metavar="PORT", help="0 takes a free one and prints it")
    options = parser.parse_args()
    if options.http is None:
        await server.run_stdio_async(show_banner=False)
        return
    listening.end_with_parent()
    listener = listening.bind("127.0.0.1", options.http)
    listening.announce(listener)
    await server.run_http_async(show_banner=False, log_level="warning", sockets=[listener])


asyncio.run(main())
