package dev.milepost.client;

/** A unique key that an active operation of the same owner has. */
public class UniqueKeyTakenException extends MilepostException {
  UniqueKeyTakenException(Refusal refusal) {
    super(refusal);
  }

  /**
   * Returns the id of the active operation that has the key.
   *
   * @return the id
   */
  public String operationId() {
    return metadata().getOrDefault("operation_id", "");
  }
}
