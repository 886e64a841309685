package dev.milepost.client;

/** The options of a write of a worker. */
public class WriteOptions extends ChangeOptions<WriteOptions> {
  /** Creates options without a value. */
  public WriteOptions() {}

  /**
   * Writes only in this attempt, which a worker that has claimed the operation always names.
   *
   * @param attempt the attempt of the claim
   * @return these options
   */
  public WriteOptions attempt(int attempt) {
    return withAttempt(attempt);
  }

  @Override
  WriteOptions self() {
    return this;
  }
}
