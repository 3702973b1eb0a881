"""Show the book while it is written: build it when a file changed, serve it on this machine."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"


class Quiet(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")  # a reload shows the newest page
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def state() -> dict[Path, float]:
    """The time of each file that the book is made from."""
    files = [ROOT / "_config.yml", ROOT / "_toc.yml"]
    files += [f for folder in ("book", "minflow") for f in (ROOT / folder).rglob("*")]
    return {
        file: file.stat().st_mtime
        for file in files
        if file.is_file() and file.suffix != ".pyc" and ".ipynb_checkpoints" not in file.parts
    }


def build() -> None:
    if subprocess.run(["make", "--silent", "book"], cwd=ROOT).returncode:
        print("The build failed; the last good pages are still shown.", file=sys.stderr)


def main() -> None:
    known = state()
    build()
    handler = functools.partial(Quiet, directory=str(HTML))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", 8000), handler)
    except OSError:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(
        f"Reading the book at http://127.0.0.1:{server.server_port} (stop with Ctrl-C)", flush=True
    )
    try:
        while True:
            time.sleep(1)
            if (now := state()) != known:
                known = now
                build()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
