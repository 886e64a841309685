package dev.milepost.client;

import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;

/**
 * A failure that no other attempt can change: the operation fails at once. Thrown by a {@link
 * Handler}. May have subclasses.
 */
public class PermanentFailure extends RuntimeException {
  private String code;
  private String source;
  private transient Map<String, Object> details = Map.of();

  /**
   * Creates a failure with a text for the owner of the operation.
   *
   * @param message the text
   */
  public PermanentFailure(String message) {
    super(message);
  }

  /**
   * Creates a failure with a cause.
   *
   * @param message the text
   * @param cause the cause
   */
  public PermanentFailure(String message, Throwable cause) {
    super(message, cause);
  }

  /**
   * Sets the kind of error for programs, such as CODEC_UNSUPPORTED.
   *
   * @param kind the code; by default the name of the class
   * @return this failure
   */
  public PermanentFailure withCode(String kind) {
    code = kind;
    return this;
  }

  /**
   * Names the part of the input or of the system that caused the failure.
   *
   * @param part the part
   * @return this failure
   */
  public PermanentFailure withSource(String part) {
    source = part;
    return this;
  }

  /**
   * Adds further facts.
   *
   * @param facts a JSON object
   * @return this failure
   */
  public PermanentFailure withDetails(Map<String, ?> facts) {
    details = Collections.unmodifiableMap(new HashMap<>(facts));
    return this;
  }

  /** {@return the kind of error for programs} */
  public String code() {
    return code == null || code.isBlank() ? Failures.nameOf(this) : code;
  }

  /** {@return the part of the input or of the system that caused the failure} */
  public Optional<String> source() {
    return Optional.ofNullable(source);
  }

  /** {@return further facts} */
  public Map<String, Object> details() {
    return details == null ? Map.of() : details;
  }
}
