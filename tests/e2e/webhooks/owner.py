"""What the owner of webhooks is told about them."""

from milepost.gen.milepost.v1 import webhook_service_pb2 as pb
from tests.waiting import eventually

PENDING = pb.DELIVERY_STATUS_PENDING
DELIVERED = pb.DELIVERY_STATUS_DELIVERED
EXHAUSTED = pb.DELIVERY_STATUS_EXHAUSTED
STOPPED = pb.DELIVERY_STATUS_STOPPED


def secret_of(client):
    """The secret that signs now."""
    return client.call("GetSigningSecret").current.value


def new_secret_of(client):
    """The secret that signs after a rotation."""
    return client.call("RotateSigningSecret").current.value


def settled(client, operation_id):
    """The one delivery of an operation, once it is settled."""

    def found():
        (delivery,) = client.call("ListDeliveries", operation_id=operation_id).deliveries
        return delivery if delivery.status != PENDING else None

    return eventually(found, within=20, what="settled")
