"""A server on the first release of the Python SDK (1.0), which knows only stdio and `initialize`.

Any other request as the first message is its end: it answers nothing and ends at the next one.
"""

import asyncio

from mcp import types
from mcp.server import Server
from mcp.server.stdio import stdio_server

server = Server("lowlevel-first")


@server.list_tools()
async def list_tools() -> list[types.Tool]:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    }
    return [types.Tool(name="add", description="Adds two whole numbers.", inputSchema=schema)]


@server.call_tool()
async def call_tool(name: str, arguments: dict) -> list[types.TextContent]:
    return [types.TextContent(type="text", text=str(arguments["a"] + arguments["b"]))]


async def main() -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


asyncio.run(main())
