"""A server of OpenAI's chat completions that knows the checkpoint that it was started on: what `--engine serve` starts.

usage: toy_server.py CHECKPOINT PORT [fail|sleep|mute|stubborn|dies]
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if mode == "mute":
            time.sleep(60)
        self.reply({"status": "ok"}, 200 if self.path == "/health" else 404)

    def do_POST(self):
        if mode == "dies":
            print("out of memory", flush=True)
            os._exit(9)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["model"] != checkpoint:
            self.reply({"error": f"no model {body['model']}"}, 404)
            return
        text = body["messages"][0]["content"][-1]["text"]
        name = json.loads(Path(checkpoint, "config.json").read_text())["name"]
        self.reply({"choices": [{"message": {"content": f"{name}: {text}"}}]}, 200)

    def reply(self, value, status):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


checkpoint, port, mode = (*sys.argv[1:], "")[:3]
if mode == "fail":
    sys.exit("CUDA is not here")
if mode == "sleep":
    time.sleep(60)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(checkpoint, "pids").write_text(f"{os.getpid()} {child.pid}")
time.sleep(0.2)
ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
