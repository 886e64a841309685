package dev.milepost.client;

import dev.milepost.v1.ReleaseOperationRequest;
import java.time.Duration;

/** The options of the release of an operation. */
public class ReleaseOptions extends ChangeOptions<ReleaseOptions> {
  private final ReleaseOperationRequest.Builder request = ReleaseOperationRequest.newBuilder();

  /** Creates options without a value. */
  public ReleaseOptions() {}

  /**
   * Delays the next claim of the operation.
   *
   * @param delay at most 1 h
   * @return these options
   */
  public ReleaseOptions delay(Duration delay) {
    request.setDelay(Times.to(delay));
    return this;
  }

  /**
   * Stores a reason with the event.
   *
   * @param reason at most 1,000 characters
   * @return these options
   */
  public ReleaseOptions reason(String reason) {
    request.setReason(reason);
    return this;
  }

  /**
   * Releases only this attempt.
   *
   * @param attempt the attempt of the claim
   * @return these options
   */
  public ReleaseOptions attempt(int attempt) {
    return withAttempt(attempt);
  }

  @Override
  ReleaseOptions self() {
    return this;
  }

  ReleaseOperationRequest toMessage(String id) {
    return apply(request.clone().setOperationId(id)).build();
  }
}
