package dev.milepost.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.io.Serializable;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * The facts of a refused or broken call.
 *
 * @param code the gRPC code
 * @param reason the machine-readable reason; empty if the service itself gave none
 * @param message the text for people
 * @param metadata the facts behind the message
 * @param violations the invalid fields
 * @param retryAfter the pause that the service asks for, or null
 * @param cause the failure of gRPC, or null
 */
record Refusal(
    io.grpc.Status.Code code,
    String reason,
    String message,
    Map<String, String> metadata,
    List<Violation> violations,
    Duration retryAfter,
    Throwable cause)
    implements Serializable {
  private static final String DOMAIN = "milepost";

  Refusal {
    metadata = Map.copyOf(metadata);
    violations = List.copyOf(violations);
  }

  /** Returns a refusal with a reason, as an item of a stream has it. */
  static Refusal of(
      io.grpc.Status.Code code, String reason, String message, Map<String, String> metadata) {
    return new Refusal(code, reason, message, metadata, List.of(), null, null);
  }

  /** Returns a refusal without a reason. */
  static Refusal of(io.grpc.Status.Code code, String message, Throwable cause) {
    return new Refusal(code, "", message, Map.of(), List.of(), null, cause);
  }

  /** Returns the facts of a failed call. */
  static Refusal of(StatusRuntimeException failure) {
    io.grpc.Status.Code code = failure.getStatus().getCode();
    Status status = StatusProto.fromThrowable(failure);
    ErrorInfo info =
        detail(status, ErrorInfo.class)
            .filter(found -> found.getDomain().equals(DOMAIN))
            .orElse(ErrorInfo.getDefaultInstance());
    List<Violation> violations =
        detail(status, BadRequest.class)
            .orElse(BadRequest.getDefaultInstance())
            .getFieldViolationsList()
            .stream()
            .map(found -> new Violation(found.getField(), found.getDescription()))
            .toList();
    Duration retryAfter =
        detail(status, RetryInfo.class).map(found -> Times.of(found.getRetryDelay())).orElse(null);
    String text = failure.getStatus().getDescription();
    String message = text == null || text.isEmpty() ? "the call ended with " + code : text;
    return new Refusal(
        code, info.getReason(), message, info.getMetadataMap(), violations, retryAfter, failure);
  }

  /** Returns the first detail of the kind; one that cannot be decoded is as good as none. */
  private static <M extends Message> Optional<M> detail(Status status, Class<M> kind) {
    return status.getDetailsList().stream()
        .filter(each -> each.is(kind))
        .flatMap(each -> unpacked(each, kind).stream())
        .findFirst();
  }

  private static <M extends Message> Optional<M> unpacked(Any packed, Class<M> kind) {
    try {
      return Optional.of(packed.unpack(kind));
    } catch (InvalidProtocolBufferException undecodable) {
      return Optional.empty();
    }
  }
}
