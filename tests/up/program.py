"""A tiny server that misbehaves on request: ``program.py PORT FOLDER [ignore-term] [offspring] [secret TEXT]``.

It answers 200 at every path, but not at all while FOLDER/hang exists; it exits with code 3 when FOLDER/die exists.
``offspring`` starts a child in a session of its own that ignores TERM and writes its pid to FOLDER/offspring.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def main() -> None:
    """Serve until told otherwise."""
    port, folder, wishes = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            while (folder / "hang").exists():
                time.sleep(0.02)
            self.send_response(200)
            self.end_headers()

    if "ignore-term" in wishes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "offspring" in wishes:
        child = subprocess.Popen([sys.executable, "-S", "-c", SLEEPER], start_new_session=True)
        (folder / "offspring").write_text(str(child.pid))
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"listening {' '.join(wishes)}\n")
    sys.stdout.flush()
    while not (folder / "die").exists():
        time.sleep(0.02)
    os._exit(3)


if __name__ == "__main__":
    main()
