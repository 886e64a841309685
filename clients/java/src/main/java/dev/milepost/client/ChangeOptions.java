package dev.milepost.client;

import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;

/**
 * The options of every change of an operation.
 *
 * @param <S> the class of the options
 */
public abstract class ChangeOptions<S extends ChangeOptions<S>> {
  private String requestId;
  private Long expectedRevision;
  private Integer attempt;

  ChangeOptions() {}

  abstract S self();

  /**
   * Makes the call repeatable over a restart of the program; random by default.
   *
   * @param id 1 to 255 letters, digits and {@code _ . : -}
   * @return these options
   */
  public S requestId(String id) {
    requestId = id;
    return self();
  }

  /**
   * Changes the operation only if it still has this revision.
   *
   * @param revision the revision that was read
   * @return these options
   */
  public S expectedRevision(long revision) {
    expectedRevision = revision;
    return self();
  }

  S withAttempt(int number) {
    attempt = number;
    return self();
  }

  /** Sets the fields of the request. */
  <B extends Message.Builder> B apply(B request) {
    set(request, "request_id", requestId);
    set(request, "expected_revision", expectedRevision);
    set(request, "attempt", attempt);
    return request;
  }

  private static void set(Message.Builder request, String name, Object value) {
    FieldDescriptor field = request.getDescriptorForType().findFieldByName(name);
    if (value != null) {
      request.setField(field, value);
    }
  }
}
