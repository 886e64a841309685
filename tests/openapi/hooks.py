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
        roles = body.get("roles")
        if isinstance(roles, list):  # only workers have grants
            body.pop("functions", None)
            if "ROLE_WORKER" in roles:
                body["functions"] = ["*"]
    return body


@schemathesis.hook
def map_query(_context: Any, query: Any) -> Any:
    """Send no page token: the description has no pattern for those that the service returned."""
    if isinstance(query, dict):
        query.pop("pageToken", None)
    return query
