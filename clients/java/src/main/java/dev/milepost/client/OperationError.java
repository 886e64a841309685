package dev.milepost.client;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/**
 * One reason of a failure, as the worker or the service reported it.
 *
 * @param code the kind of error for programs, such as CODEC_UNSUPPORTED
 * @param message the reason for people
 * @param source the part of the input or of the system that caused it
 * @param details further data of the worker
 */
public record OperationError(
    String code, String message, Optional<String> source, Map<String, Object> details) {
  /**
   * Keeps a copy of the details.
   *
   * @param code the kind of error
   * @param message the reason
   * @param source the cause
   * @param details further data
   */
  public OperationError {
    details = Collections.unmodifiableMap(new LinkedHashMap<>(details));
  }

  /**
   * Creates an error without a source and details.
   *
   * @param code the kind of error
   * @param message the reason
   */
  public OperationError(String code, String message) {
    this(code, message, Optional.empty(), Map.of());
  }

  static OperationError of(dev.milepost.v1.OperationError message) {
    return new OperationError(
        message.getCode(),
        message.getMessage(),
        message.hasSource() ? Optional.of(message.getSource()) : Optional.empty(),
        Json.fromStruct(message.getDetails()));
  }

  dev.milepost.v1.OperationError toMessage() {
    dev.milepost.v1.OperationError.Builder error =
        dev.milepost.v1.OperationError.newBuilder().setCode(code).setMessage(message);
    source.ifPresent(error::setSource);
    if (!details.isEmpty()) {
      error.setDetails(Json.toStruct(details));
    }
    return error.build();
  }
}
