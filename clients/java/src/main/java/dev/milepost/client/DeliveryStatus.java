package dev.milepost.client;

/** The status of the delivery of a webhook. */
public enum DeliveryStatus {
  /** A status of a newer service. */
  UNKNOWN,
  /** Is to be sent, or sent again. */
  PENDING,
  /** Was accepted by the receiver. */
  DELIVERED,
  /** Was not accepted at any attempt. */
  EXHAUSTED,
  /** Is not sent any more. */
  STOPPED;

  private static final String PREFIX = "DELIVERY_STATUS_";

  static DeliveryStatus of(dev.milepost.v1.DeliveryStatus status) {
    return switch (status) {
      case DELIVERY_STATUS_PENDING -> PENDING;
      case DELIVERY_STATUS_DELIVERED -> DELIVERED;
      case DELIVERY_STATUS_EXHAUSTED -> EXHAUSTED;
      case DELIVERY_STATUS_STOPPED -> STOPPED;
      case DELIVERY_STATUS_UNSPECIFIED, UNRECOGNIZED -> UNKNOWN;
    };
  }

  dev.milepost.v1.DeliveryStatus toMessage() {
    return dev.milepost.v1.DeliveryStatus.valueOf(PREFIX + name());
  }
}
