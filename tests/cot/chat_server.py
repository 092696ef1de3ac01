"""A small endpoint that speaks the chat format of OpenAI, with the failures of real ones."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace


GOOD = "Step 1: Evidence\nThe customer buys lamps for a desk.\nStep 2: Preferences\nWarm light matters most to them."


@contextmanager
def chat_server(
    behave: Callable[[str, int], str | int | tuple[str, str]], delay: float = 0.0
) -> Iterator[SimpleNamespace]:
    """
    Serves chat completions.

    Args:
        behave: (last line of the prompt, how often it was asked before) -> the answer's text, or (text, finish
            reason), or an HTTP status, or `"HANG UP"` (half an answer), `"HTML"` (a page in place of JSON),
            `"NO CHOICES"`.
        delay: seconds before every answer.

    Yields:
        `SimpleNamespace`: `url`, `asked` (how often each prompt was), `bodies` and `authorization` of the requests.
    """
    seen = SimpleNamespace(asked=Counter(), bodies=[], authorization=set(), most_at_a_time=0, now=0)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][-1]["content"].splitlines()[-1]
            with lock:
                before = seen.asked[prompt]
                seen.asked[prompt] += 1
                seen.bodies.append(body)
                seen.authorization.add(self.headers.get("Authorization"))
                seen.now += 1
                seen.most_at_a_time = max(seen.most_at_a_time, seen.now)
            time.sleep(delay)
            self.reply(behave(prompt, before))
            with lock:
                seen.now -= 1

        def reply(self, answer):
            status = answer if isinstance(answer, int) else 200
            text, reason = answer if isinstance(answer, tuple) else (answer, "stop")
            message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
            content = {
                "id": "1",
                "created": 1,
                "model": "m",
                "system_fingerprint": "",
                "usage": {},
                "choices": [message],
            }
            if answer == "NO CHOICES":
                content["choices"] = []
            data = b"<html>Bad gateway</html>" if answer == "HTML" else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:20] if answer == "HANG UP" else data)
            self.close_connection = True

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    seen.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
