"""What every server here does alike: say where it listens, and end with whoever started it.

A test asks for port 0 and reads the real one from the line `listening PORT` on standard output,
so no test picks a port and hopes. A test that is killed cannot clean up behind itself, so a
server that finds itself adopted by another parent leaves. How many sessions it has kept is asked
by SIGUSR1, since any request might open one more.
"""

import gc
import os
import signal
import socket
import threading
import time


def bind(host: str, port: int) -> socket.socket:
    """Binds and listens, so that whoever reads the line below can connect at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's delay off, as it does where it binds itself.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


def announce(listener: socket.socket) -> None:
    """Prints `listening PORT`."""
    print("listening", listener.getsockname()[1], flush=True)


def end_with_parent() -> None:
    """Ends this process within a second of its parent's end."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def tell_sessions() -> None:
    """Prints `sessions N`, the streamable HTTP sessions open now, at every SIGUSR1."""
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    def tell(*_) -> None:
        # What holds them is made deep inside, at another place in every version.
        found = (held for held in gc.get_objects() if isinstance(held, StreamableHTTPSessionManager))
        print("sessions", sum(len(manager._server_instances) for manager in found), flush=True)

    signal.signal(signal.SIGUSR1, tell)
