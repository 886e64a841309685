package dev.milepost.client;

import io.grpc.Status.Code;
import java.util.EnumSet;
import java.util.Set;

/**
 * The difference between a refusal of the service and a call that was broken on its way.
 *
 * <p>Every refusal of the service has a reason. An error without one comes from something between:
 * the connection, a proxy, or gRPC itself. It says nothing about the request, so what may be sent
 * twice is sent again.
 */
final class Disruption {
  /**
   * The codes of a broken call beside UNAVAILABLE: proxies reset the streams of a lost replica
   * (INTERNAL) or answer with an error page (UNKNOWN), and a service that stops may cancel.
   */
  private static final Set<Code> BROKEN = EnumSet.of(Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED);

  private static final Set<Code> LATE = EnumSet.of(Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED);

  /** The codes of a proxy that is full, or has no route now; at the first try, of an error. */
  private static final Set<Code> ONCE_WORKED =
      EnumSet.of(Code.RESOURCE_EXHAUSTED, Code.UNIMPLEMENTED);

  private Disruption() {}

  /** Returns true if a call was broken on its way; hasWorked if the service answered before. */
  static boolean isDisruption(MilepostException error, boolean hasWorked) {
    Code code = error.code();
    return hasNoReason(error)
        && (BROKEN.contains(code)
            || LATE.contains(code)
            || (hasWorked && ONCE_WORKED.contains(code)));
  }

  /** Returns true if another try of the same call may find the service. */
  static boolean isPassing(MilepostException error) {
    return error instanceof UnavailableException || isDisruption(error, false);
  }

  /** Returns true for a limit without a reason, as of a proxy or of the size of a message. */
  static boolean isVagueLimit(MilepostException error) {
    return hasNoReason(error) && error.code() == Code.RESOURCE_EXHAUSTED;
  }

  /** Returns true for the refusal of a proxy or of gRPC that may be temporary or not. */
  static boolean isUnexplained(MilepostException error) {
    return isVagueLimit(error) || (hasNoReason(error) && BROKEN.contains(error.code()));
  }

  /** Returns true if the same request may succeed later. */
  static boolean isTemporary(MilepostException error) {
    return error instanceof UnavailableException
        || error instanceof DeadlineExceededException
        || error instanceof RateLimitedException
        || error instanceof LostRaceException
        || error instanceof InternalException
        || isUnexplained(error);
  }

  /** Returns true if a worker must stop working on the operation. */
  static boolean isOver(Throwable error) {
    return error instanceof IllegalTransitionException
        || error instanceof StaleAttemptException
        || error instanceof NotFoundException;
  }

  private static boolean hasNoReason(MilepostException error) {
    return error.reason().isEmpty()
        && !(error instanceof UndecodableAnswerException)
        && !(error instanceof NoResultException)
        && !(error instanceof CallInterruptedException);
  }
}
