"""A receiver of webhooks. MILEPOST_WEBHOOK_SECRET holds what `milepost webhooks secret` shows."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from milepost_client.webhooks import NotVerified, verify

MAX_BODY_BYTES = 4 * 1024 * 1024


class Receiver(BaseHTTPRequestHandler):
    """The handler of one request."""

    timeout = 10

    def do_POST(self) -> None:
        """Take a webhook that the secret signed. Its id is the same when it is sent again."""
        length = int(self.headers.get("content-length", 0))
        if length > MAX_BODY_BYTES:
            self.send_error(413)
            return
        headers = dict(self.headers.items())
        try:
            event = verify(self.rfile.read(length), headers, os.environ["MILEPOST_WEBHOOK_SECRET"])
        except NotVerified as problem:
            self.send_error(401, str(problem))
            return
        sys.stdout.write(f"{self.headers['webhook-id']} {event['type']}\n")
        sys.stdout.flush()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write no line for each request."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
