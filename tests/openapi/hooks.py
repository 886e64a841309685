"""What the description cannot say, for the requests that schemathesis generates from it.

Runs in the environment of schemathesis, which has nothing of Milepost.
"""

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """Keep to rules between fields, and to the clock."""
    if isinstance(body, dict):
        body.pop("scheduleTime", None)  # at most 30 days ahead
        body.pop("expireTime", None)  # in the future
        body.pop("callbackUrl", None)  # its host must have a public address
        if "roles" in body and "ROLE_WORKER" not in body["roles"]:
            body.pop("functions", None)  # only workers have grants
        elif "roles" in body:
            body["functions"] = body.get("functions") or ["*"]
    return body


@schemathesis.hook
def map_query(_context: Any, query: Any) -> Any:
    """Send no page token: the description has no pattern for those that the service returned."""
    if query:
        query.pop("pageToken", None)
    return query
