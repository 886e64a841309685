"""A receiver of webhooks. WEBHOOK_SECRET holds what `milepost webhooks secret` shows.

Run it as ``python receive_webhooks.py PORT``. It needs milepost-client and nothing else.
"""

import os
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from milepost_client.webhooks import NotVerified, verify

MAX_BODY_BYTES = 8 * 2**20
"""Larger than any webhook: a result has at most 2 MiB by default."""


class Receiver(BaseHTTPRequestHandler):
    """Takes webhooks at /hook."""

    timeout = 10
    """Seconds for which a sender may be silent."""

    def do_POST(self) -> None:
        """Take a webhook, if it is one. Its id is the same when it is sent again."""
        length = int(self.headers.get("Content-Length", 0))
        if self.path != "/hook" or length > MAX_BODY_BYTES:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = self.rfile.read(length)
        try:
            event = verify(body, self.headers, os.environ["WEBHOOK_SECRET"])
        except NotVerified as problem:
            self.send_error(HTTPStatus.UNAUTHORIZED, explain=str(problem))
            return
        sys.stdout.write(f"{self.headers['webhook-id']} {event['type']}\n")
        sys.stdout.flush()
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
