package dev.milepost.client;

import dev.milepost.v1.FailOperationRequest;
import java.time.Duration;

/** The options of a failure. */
public class FailOptions extends ChangeOptions<FailOptions> {
  private final FailOperationRequest.Builder request = FailOperationRequest.newBuilder();

  /** Creates options without a value: the failure is final. */
  public FailOptions() {}

  /**
   * Says that another attempt may succeed.
   *
   * @return these options
   */
  public FailOptions retryable() {
    request.setRetryable(true);
    return this;
  }

  /**
   * Says that another attempt may succeed after a delay, which replaces that of the retry policy.
   *
   * @param delay at most 24 h
   * @return these options
   */
  public FailOptions retryDelay(Duration delay) {
    request.setRetryDelay(Times.to(delay));
    return retryable();
  }

  /**
   * Fails only this attempt.
   *
   * @param attempt the attempt of the claim
   * @return these options
   */
  public FailOptions attempt(int attempt) {
    return withAttempt(attempt);
  }

  @Override
  FailOptions self() {
    return this;
  }

  FailOperationRequest.Builder toMessage(String id) {
    return apply(request.clone().setOperationId(id));
  }
}
