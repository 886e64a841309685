package dev.milepost.client;

import dev.milepost.v1.CancelOperationRequest;
import java.time.Duration;

/** The options of a cancel. */
public class CancelOptions extends ChangeOptions<CancelOptions> {
  private final CancelOperationRequest.Builder request = CancelOperationRequest.newBuilder();

  /** Creates options without a value. */
  public CancelOptions() {}

  /**
   * Stores a reason with the operation.
   *
   * @param reason at most 1,000 characters
   * @return these options
   */
  public CancelOptions reason(String reason) {
    request.setReason(reason);
    return this;
  }

  /**
   * Gives the worker time to end the operation. Without it, the operation is cancelled at once.
   *
   * @param grace at most 1 h
   * @return these options
   */
  public CancelOptions grace(Duration grace) {
    request.setGrace(Times.to(grace));
    return this;
  }

  @Override
  CancelOptions self() {
    return this;
  }

  CancelOperationRequest toMessage(String id) {
    return apply(request.clone().setOperationId(id)).build();
  }
}
