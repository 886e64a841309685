package dev.milepost.client;

import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * A refused or broken call; the root of the tree of errors.
 *
 * <pre>
 * MilepostException
 * ├── InvalidRequestException                   a field is malformed: see violations()
 * │   └── ProgressDecreaseException             progress would decrease
 * ├── UnauthenticatedException                  the credential is missing or invalid
 * ├── PermissionDeniedException                 the credential lacks the role that the call requires
 * ├── NotFoundException                         no such resource is visible to you
 * │   ├── ApiKeyNotFoundException               unknown API key
 * │   ├── DeliveryNotFoundException             unknown, or of another owner's operation
 * │   ├── SigningSecretNotFoundException        you have no signing secret yet
 * │   └── OperationNotFoundException            unknown, or not visible to you
 * │       ├── OperationExpiredException         your own operation, expired
 * │       └── OperationDeletedException         your own operation, deleted
 * ├── IllegalTransitionException                not allowed: see transition(), status(), allowed()
 * │   └── CancelledException                    not allowed because the operation is cancelled
 * ├── CancellationNotRequestedException         acknowledged, but no cancel was requested
 * ├── ConflictException                         based on an old copy: read again and retry
 * │   ├── RevisionMismatchException             the operation is not at the expected revision
 * │   ├── StaleAttemptException                 the attempt is over: stop working on the operation
 * │   └── LostRaceException                     concurrent changes preceded every try
 * ├── RevisionAheadException                    the operation is not at that revision yet, or no longer
 * ├── RequestIdReusedException                  the same request id with other content
 * ├── UniqueKeyTakenException                   an active operation has the key: see operationId()
 * ├── WebhooksNotConfiguredException            this service sends no webhooks
 * ├── LimitReachedException                     a limit: try again after retryAfter()
 * │   ├── RateLimitedException                  too many calls
 * │   ├── QuotaExceededException                too many active operations
 * │   └── StreamFullException                   too many operations on one progress stream
 * ├── UnavailableException                      temporary; the client retried until the deadline
 * │   ├── StoreUnavailableException             the database does not answer
 * │   ├── IdentityProviderUnavailableException  the issuer of your token does not answer
 * │   ├── OverloadedException                   the replica holds as many calls as it accepts
 * │   └── DrainingException                     the replica is shutting down
 * ├── DeadlineExceededException                 no response in time: a change may have happened
 * ├── NotAvailableException                     documented, but not in this release of the service
 * ├── UndecodableAnswerException                accepted, but this client cannot read the response
 * ├── InternalException                         a defect of the service: metadata() has the trace id
 * │   └── IdsExhaustedException                 the service found no free id
 * ├── CallInterruptedException                  the thread was interrupted during the call
 * └── NoResultException                         there is no result: see operation()
 *     ├── OperationFailedException              the operation failed
 *     ├── OperationCancelledException           the operation was cancelled
 *     └── StillRunningException                 it had not ended when the timeout passed
 * </pre>
 *
 * <p>The class follows from the reason that the service sent, never from the text. An unknown
 * reason is treated as its gRPC code.
 */
public class MilepostException extends RuntimeException {
  private final Refusal refusal;

  MilepostException(Refusal refusal) {
    super(refusal.message(), refusal.cause());
    this.refusal = refusal;
  }

  /**
   * Returns the gRPC code of the response.
   *
   * @return the code; UNKNOWN without a response
   */
  public Status.Code code() {
    return refusal.code();
  }

  /**
   * Returns the machine-readable reason, such as ILLEGAL_TRANSITION.
   *
   * @return the reason; empty if the error does not come from the service itself, but from the
   *     connection, a proxy, or gRPC
   */
  public String reason() {
    return refusal.reason();
  }

  /**
   * Returns the facts behind the message.
   *
   * @return the facts by their names
   */
  public Map<String, String> metadata() {
    return refusal.metadata();
  }

  /**
   * Returns the invalid fields of the request.
   *
   * @return the fields, with the rules that they violate
   */
  public List<Violation> violations() {
    return refusal.violations();
  }

  /**
   * Returns the pause before the next try that the service asks for.
   *
   * @return the pause; empty if the service asks for none
   */
  public Optional<Duration> retryAfter() {
    return Optional.ofNullable(refusal.retryAfter());
  }
}
