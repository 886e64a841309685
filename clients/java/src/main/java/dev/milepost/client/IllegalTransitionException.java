package dev.milepost.client;

import java.util.Arrays;
import java.util.List;

/** A transition that the current status does not allow. */
public class IllegalTransitionException extends MilepostException {
  IllegalTransitionException(Refusal refusal) {
    super(refusal);
  }

  /**
   * Returns the requested transition.
   *
   * @return its name, such as "complete"
   */
  public String transition() {
    return metadata().getOrDefault("transition", "");
  }

  /**
   * Returns the current status of the operation.
   *
   * @return the status
   */
  public Status status() {
    return Status.named(metadata().getOrDefault("status", ""));
  }

  /**
   * Returns the statuses that allow the transition.
   *
   * @return the statuses
   */
  public List<Status> allowed() {
    return Arrays.stream(metadata().getOrDefault("allowed", "").split(","))
        .filter(name -> !name.isEmpty())
        .map(Status::named)
        .toList();
  }
}
