"""Sends bare pings on one streamable HTTP session, as something to compare a monitor with.

Opens a session at the URL, pings WARM times, prints `ready`, waits for a line on standard input,
pings COUNT times, prints `done` and goes at end of input, without ending the session.
"""

import http.client
import json
import sys
from urllib.parse import urlsplit

URL, WARM, COUNT = urlsplit(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
connection = http.client.HTTPConnection(URL.hostname, URL.port)
number = 0


def post(method: str, params: dict | None = None, *, notify: bool = False) -> None:
    global number
    message = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    if not notify:
        number += 1
        message["id"] = number
    connection.request("POST", URL.path, json.dumps(message), HEADERS)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status not in (200, 202):
        sys.exit(f"{method} was answered with {answer.status}: {body[:200]!r}")
    if method == "initialize":
        HEADERS["Mcp-Session-Id"] = answer.getheader("mcp-session-id", "")
        HEADERS["MCP-Protocol-Version"] = params["protocolVersion"]


client = {"name": "ping", "version": "1"}
post("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
post("notifications/initialized", notify=True)
for _ in range(WARM):
    post("ping")
print("ready", flush=True)
sys.stdin.readline()
# A server closes a connection that was idle; the session goes on over another.
connection.close()
for _ in range(COUNT):
    post("ping")
print("done", flush=True)
sys.stdin.read()
