package dev.milepost.client;

/** The outcome of a create whose unique key an active operation of the same owner has. */
public enum UniqueKeyPolicy {
  /** The create returns the active operation, which is marked as joined. The default. */
  JOIN,
  /** The create is refused with a {@link UniqueKeyTakenException}. */
  REFUSE;

  dev.milepost.v1.UniqueKeyPolicy toMessage() {
    return this == JOIN
        ? dev.milepost.v1.UniqueKeyPolicy.UNIQUE_KEY_POLICY_JOIN
        : dev.milepost.v1.UniqueKeyPolicy.UNIQUE_KEY_POLICY_REFUSE;
  }
}
