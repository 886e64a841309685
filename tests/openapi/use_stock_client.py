"""Creates and reads an operation through the generated client, and prints what it found."""

import sys

from stock_client import AuthenticatedClient
from stock_client.api.operation_service import operation_service_create_operation as create
from stock_client.api.operation_service import operation_service_get_operation as get
from stock_client.models import OperationServiceCreateOperationBody as Body

url, key = sys.argv[1:]
with AuthenticatedClient(base_url=url, token=key) as client:
    body = Body.from_dict({"function": "video.transcode", "metadata": {"n": 1}})
    created, again = (
        create.sync(client=client, body=body, idempotency_key="order-17") for _ in range(2)
    )
    read = get.sync(operation_id=created.id, client=client)
    print(  # noqa: T201 - read by the test
        read.status, read.function, read.metadata.to_dict(), "same" if again == read else "other"
    )
