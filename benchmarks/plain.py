"""Plain uvicorn, set up as well as it can be: `python -m benchmarks.plain APP --host H --port P`.

uvloop, httptools, one worker, neither an access log nor proxy headers, and the same relief from
the garbage collector that `animica-hooks serve` gives itself.
"""

import argparse
import gc
import socket

import uvicorn


class Server(uvicorn.Server):
    """Freezes what has been imported once the app has started."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain", description=__doc__)
    parser.add_argument("app")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    config = uvicorn.Config(
        options.app,
        host=options.host,
        port=options.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_level="warning",
    )
    Server(config).run()


if __name__ == "__main__":
    main()
