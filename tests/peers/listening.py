"""What every server here does alike: say where it listens, and end with whoever started it.

A test asks for port 0 and reads the real one from the line `listening PORT` on standard output,
so no test picks a port and hopes. A test that is killed cannot clean up behind itself, so a
server that finds itself adopted by another parent leaves.
"""

import os
import socket
import threading
import time


def bind(host: str, port: int) -> socket.socket:
    """Binds and listens, so that whoever reads the line below can connect at once."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
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
