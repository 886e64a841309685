package dev.milepost.client;

import com.google.protobuf.Any;
import dev.milepost.v1.UpdateProgressRequest;

/**
 * A report of a worker about its work. An empty one only renews the lease, and what is left out
 * keeps its last value.
 */
public final class Report {
  private final UpdateProgressRequest.Builder request;

  /** Creates an empty report. */
  public Report() {
    this(UpdateProgressRequest.newBuilder());
  }

  Report(UpdateProgressRequest.Builder request) {
    this.request = request;
  }

  /**
   * Reports the completed share of the work, which never goes back within one attempt.
   *
   * @param share between 0.0 and 1.0
   * @return this report
   */
  public Report progress(double share) {
    request.setProgress(share);
    return this;
  }

  /**
   * Describes the present step.
   *
   * @param text at most 1,000 characters
   * @return this report
   * @throws NotJsonException if the text holds a lone surrogate
   */
  public Report message(String text) {
    request.setMessage(Json.wellFormed(text));
    return this;
  }

  /**
   * Saves the state of the work for the next attempt.
   *
   * @param state JSON or a protobuf message of at most 65,536 bytes; null keeps the last one
   * @return this report
   * @throws NotJsonException if the state cannot be sent
   */
  public Report checkpoint(Object state) {
    Any packed = Json.toAny(state);
    if (packed == null) {
      request.clearCheckpoint();
    } else {
      request.setCheckpoint(packed);
    }
    return this;
  }

  UpdateProgressRequest.Builder toMessage() {
    return request.clone();
  }
}
