"""Reads of an owner about its webhooks."""

from milepost.gen.milepost.v1 import webhook_service_pb2 as pb
from tests.waiting import eventually

PENDING = pb.DELIVERY_STATUS_PENDING
DELIVERED = pb.DELIVERY_STATUS_DELIVERED
EXHAUSTED = pb.DELIVERY_STATUS_EXHAUSTED
STOPPED = pb.DELIVERY_STATUS_STOPPED


def secret_of(client):
    """Return the secret that signs now."""
    return client.call("GetSigningSecret").current.value


def new_secret_of(client):
    """Return the secret that signs after a rotation."""
    return client.call("RotateSigningSecret").current.value


def settled(client, operation_id):
    """Wait until the only delivery of an operation is settled, and return it."""

    def found():
        (delivery,) = client.call("ListDeliveries", operation_id=operation_id).deliveries
        return delivery if delivery.status != PENDING else None

    return eventually(found, within=20, what="settled")
