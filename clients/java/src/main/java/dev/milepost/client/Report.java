package dev.milepost.client;

import com.google.protobuf.Any;
import dev.milepost.v1.UpdateProgressRequest;

/**
 * A report of a worker about its work. An empty one only renews the lease, and what is left out
 * keeps its last value.
 */
public final class Report {
  /**
   * The limits of what is reported. A message that is too large for gRPC would end the reports of
   * all operations on the stream.
   */
  private static final int MAX_CHECKPOINT_BYTES = 65_536;

  private static final int MAX_MESSAGE_LENGTH = 65_536;

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
   * @throws IllegalArgumentException if it is far too long
   */
  public Report message(String text) {
    if (text.length() > MAX_MESSAGE_LENGTH) {
      throw new IllegalArgumentException(
          "the message has more than " + MAX_MESSAGE_LENGTH + " characters");
    }
    request.setMessage(Json.wellFormed(text));
    return this;
  }

  /**
   * Saves the state of the work for the next attempt.
   *
   * @param state JSON or a protobuf message; null keeps the last one
   * @return this report
   * @throws NotJsonException if the state cannot be sent
   * @throws IllegalArgumentException if it has more than 65,536 bytes
   */
  public Report checkpoint(Object state) {
    Any packed = Json.toAny(state);
    if (packed == null) {
      request.clearCheckpoint();
    } else if (packed.getValue().size() > MAX_CHECKPOINT_BYTES) {
      throw new IllegalArgumentException(
          "the checkpoint has more than " + MAX_CHECKPOINT_BYTES + " bytes");
    } else {
      request.setCheckpoint(packed);
    }
    return this;
  }

  UpdateProgressRequest.Builder toMessage() {
    return request.clone();
  }
}
