package dev.milepost.client;

import dev.milepost.v1.StartOperationRequest;

/** The options of the start of an operation. */
public class StartOptions extends ChangeOptions<StartOptions> {
  private final StartOperationRequest.Builder request = StartOperationRequest.newBuilder();

  /** Creates options without a value. */
  public StartOptions() {}

  /**
   * Sets the first progress.
   *
   * @param progress between 0.0 and 1.0
   * @return these options
   */
  public StartOptions progress(double progress) {
    request.setProgress(progress);
    return this;
  }

  /**
   * Names the worker, for people.
   *
   * @param name at most 255 characters
   * @return these options
   */
  public StartOptions worker(String name) {
    request.setWorker(name);
    return this;
  }

  @Override
  StartOptions self() {
    return this;
  }

  StartOperationRequest toMessage(String id) {
    return apply(request.clone().setOperationId(id)).build();
  }
}
