package dev.milepost.client;

import static java.util.Map.entry;

import com.google.protobuf.InvalidProtocolBufferException;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import java.util.Map;
import java.util.function.Function;

/** The typed exceptions of refusals, by reason, or by code where the reason is unknown. */
final class Refusals {
  /** The class of every reason that the service gives. */
  static final Map<String, Function<Refusal, MilepostException>> BY_REASON =
      Map.ofEntries(
          entry("INVALID_REQUEST", InvalidRequestException::new),
          entry("PROGRESS_DECREASE", ProgressDecreaseException::new),
          entry("UNAUTHENTICATED", UnauthenticatedException::new),
          entry("PERMISSION_DENIED", PermissionDeniedException::new),
          entry("API_KEY_NOT_FOUND", ApiKeyNotFoundException::new),
          entry("DELIVERY_NOT_FOUND", DeliveryNotFoundException::new),
          entry("SIGNING_SECRET_NOT_FOUND", SigningSecretNotFoundException::new),
          entry("OPERATION_NOT_FOUND", OperationNotFoundException::new),
          entry("OPERATION_EXPIRED", OperationExpiredException::new),
          entry("OPERATION_DELETED", OperationDeletedException::new),
          entry("ILLEGAL_TRANSITION", IllegalTransitionException::new),
          entry("CANCELLATION_NOT_REQUESTED", CancellationNotRequestedException::new),
          entry("REVISION_MISMATCH", RevisionMismatchException::new),
          entry("STALE_ATTEMPT", StaleAttemptException::new),
          entry("LOST_RACE", LostRaceException::new),
          entry("REVISION_AHEAD", RevisionAheadException::new),
          entry("REQUEST_ID_REUSED", RequestIdReusedException::new),
          entry("UNIQUE_KEY_TAKEN", UniqueKeyTakenException::new),
          entry("WEBHOOKS_NOT_CONFIGURED", WebhooksNotConfiguredException::new),
          entry("RATE_LIMITED", RateLimitedException::new),
          entry("QUOTA_EXCEEDED", QuotaExceededException::new),
          entry("STREAM_FULL", StreamFullException::new),
          entry("STORE_UNAVAILABLE", StoreUnavailableException::new),
          entry("IDENTITY_PROVIDER_UNAVAILABLE", IdentityProviderUnavailableException::new),
          entry("OVERLOADED", OverloadedException::new),
          entry("DRAINING", DrainingException::new),
          entry("INTERNAL", InternalException::new),
          entry("IDS_EXHAUSTED", IdsExhaustedException::new));

  /** The class of a reason of a newer service, and of an answer of gRPC itself. */
  private static final Map<Code, Function<Refusal, MilepostException>> BY_CODE =
      Map.ofEntries(
          entry(Code.INVALID_ARGUMENT, InvalidRequestException::new),
          entry(Code.UNAUTHENTICATED, UnauthenticatedException::new),
          entry(Code.PERMISSION_DENIED, PermissionDeniedException::new),
          entry(Code.NOT_FOUND, NotFoundException::new),
          entry(Code.ABORTED, ConflictException::new),
          entry(Code.RESOURCE_EXHAUSTED, LimitReachedException::new),
          entry(Code.UNAVAILABLE, UnavailableException::new),
          entry(Code.DEADLINE_EXCEEDED, DeadlineExceededException::new),
          entry(Code.UNIMPLEMENTED, NotAvailableException::new),
          entry(Code.INTERNAL, InternalException::new));

  private Refusals() {}

  /** Returns the exception that the failure of a call stands for. */
  static MilepostException rebuild(StatusRuntimeException failure) {
    if (isUndecodable(failure)) {
      String message = "the service accepted the call, but its response cannot be decoded";
      return new UndecodableAnswerException(Refusal.of(Code.INTERNAL, message, failure));
    }
    return typed(Refusal.of(failure));
  }

  /** Returns the exception of the reason, or of the code if the reason is unknown. */
  static MilepostException typed(Refusal refusal) {
    if (refusal.reason().equals("ILLEGAL_TRANSITION")
        && Status.CANCELLED.name().equals(refusal.metadata().get("status"))) {
      return new CancelledException(refusal);
    }
    Function<Refusal, MilepostException> byCode =
        BY_CODE.getOrDefault(refusal.code(), MilepostException::new);
    return BY_REASON.getOrDefault(refusal.reason(), byCode).apply(refusal);
  }

  /** Returns true if a received message was malformed: gRPC reports that as a broken call. */
  private static boolean isUndecodable(Throwable failure) {
    for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
      if (cause instanceof InvalidProtocolBufferException) {
        return true;
      }
    }
    return false;
  }
}
