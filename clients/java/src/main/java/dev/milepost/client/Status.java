package dev.milepost.client;

import dev.milepost.v1.OperationStatus;

/** The status of an operation. */
public enum Status {
  /** A status of a newer service, which this client treats as not terminal. */
  UNKNOWN,
  /** Waits for a worker. */
  PENDING,
  /** In the hands of a worker. */
  PROCESSING,
  /** Ended with success; may have a result. */
  COMPLETED,
  /** Ended with a failure; has at least one error. */
  FAILED,
  /** Ended because its owner or an admin cancelled it. */
  CANCELLED;

  private static final String PREFIX = "OPERATION_STATUS_";

  /**
   * Returns true if an operation of this status has ended.
   *
   * @return true for COMPLETED, FAILED and CANCELLED
   */
  public boolean isTerminal() {
    return this == COMPLETED || this == FAILED || this == CANCELLED;
  }

  static Status of(OperationStatus status) {
    return named(status.name().replace(PREFIX, ""));
  }

  /** Returns the status of the name, or UNKNOWN. */
  static Status named(String name) {
    for (Status status : values()) {
      if (status.name().equals(name)) {
        return status;
      }
    }
    return UNKNOWN;
  }

  /** Returns the status as it is sent. */
  OperationStatus toMessage() {
    if (this == UNKNOWN) {
      throw new IllegalArgumentException("no operation has the status UNKNOWN");
    }
    return OperationStatus.valueOf(PREFIX + name());
  }
}
