package dev.milepost.client;

import dev.milepost.v1.CancelOperationResponse;
import dev.milepost.v1.CreateOperationRequest;
import dev.milepost.v1.CreateOperationResponse;
import dev.milepost.v1.DeleteOperationRequest;
import dev.milepost.v1.GetOperationRequest;
import dev.milepost.v1.ListEventsRequest;
import dev.milepost.v1.ListEventsResponse;
import dev.milepost.v1.ListOperationsRequest;
import dev.milepost.v1.ListOperationsResponse;
import dev.milepost.v1.OperationServiceGrpc;
import dev.milepost.v1.OperationView;
import dev.milepost.v1.WaitOperationRequest;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import java.time.Duration;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/**
 * A connection to a Milepost service. A program needs one; it reconnects by itself.
 *
 * <pre>{@code
 * try (Milepost milepost = Milepost.builder("127.0.0.1:7450").apiKey(key).build()) {
 *   Operation operation = milepost.create("video.transcode");
 *   Optional<Payload> result = milepost.result(operation.id(), Duration.ofMinutes(10));
 * }
 * }</pre>
 *
 * <p>Calls block, and end when their thread is interrupted. Every call has a deadline, is tried
 * again where that is safe, and throws a {@link MilepostException} of the class of its reason. All
 * methods are safe for use by many threads.
 *
 * <p>A {@link Worker} does the work of operations.
 */
public final class Milepost implements AutoCloseable {
  private static final Duration FOREVER = Duration.ofSeconds(Long.MAX_VALUE);
  private static final Duration END_TIMEOUT = Duration.ofMinutes(5);
  private static final Duration CLOSE_TIMEOUT = Duration.ofSeconds(2);

  private final String address;
  private final ManagedChannel connection;
  private final Calls calls;
  private final Set<Worker> workers = ConcurrentHashMap.newKeySet();
  private final ReleaseQueue releases = new ReleaseQueue();
  private final ProgressStream progress;
  private final ScheduledExecutorService timer =
      Executors.newSingleThreadScheduledExecutor(task -> Threads.daemon(task, "milepost-timer"));

  Milepost(String address, ManagedChannel connection, Credential credential, Duration deadline) {
    this.address = address;
    this.connection = connection;
    this.calls = new Calls(ClientInterceptors.intercept(connection, credential), deadline);
    this.progress = new ProgressStream(calls, timer);
    Reconnection.keep(connection, timer);
  }

  /**
   * Begins to set up a client.
   *
   * @param address the address, such as 127.0.0.1:7450 or dns:///milepost:7450
   * @return the builder
   */
  public static MilepostBuilder builder(String address) {
    return new MilepostBuilder(address);
  }

  /**
   * Creates an operation.
   *
   * @param function the function that does the work, such as video.transcode
   * @return the operation
   */
  public Operation create(String function) {
    return create(function, new CreateOptions());
  }

  /**
   * Creates an operation.
   *
   * @param function the function that does the work, such as video.transcode
   * @param options the options
   * @return the operation
   */
  public Operation create(String function, CreateOptions options) {
    CreateOperationRequest request = options.toMessage(function);
    CreateOperationResponse answer =
        calls.send(OperationServiceGrpc.getCreateOperationMethod(), request);
    return Operation.of(answer.getOperation(), answer.getReplayed(), answer.getJoined());
  }

  /**
   * Reads an operation.
   *
   * @param id the id of the operation
   * @return its present state
   */
  public Operation get(String id) {
    GetOperationRequest request = GetOperationRequest.newBuilder().setOperationId(id).build();
    return Operation.of(
        calls.send(OperationServiceGrpc.getGetOperationMethod(), request).getOperation());
  }

  /**
   * Lists your operations, newest first.
   *
   * @return the operations of all pages
   */
  public Pages<Operation> list() {
    return list(new ListOptions());
  }

  /**
   * Lists the operations that match, newest first.
   *
   * @param options the filters
   * @return the operations of all pages
   */
  public Pages<Operation> list(ListOptions options) {
    ListOperationsRequest.Builder filters = options.toMessage();
    if (filters.getView() == OperationView.OPERATION_VIEW_UNSPECIFIED) {
      filters.setView(OperationView.OPERATION_VIEW_BASIC);
    }
    ListOperationsRequest first = filters.build();
    return new Pages<>(
        token -> {
          ListOperationsRequest request = first.toBuilder().setPageToken(token).build();
          ListOperationsResponse page =
              calls.send(OperationServiceGrpc.getListOperationsMethod(), request);
          return new Pages.Page<>(
              page.getOperationsList().stream().map(Operation::of).toList(),
              page.getNextPageToken());
        });
  }

  /**
   * Lists the transitions of an operation that changed its status or requested to cancel it, oldest
   * first.
   *
   * @param id the id of the operation
   * @return the events of all pages
   */
  public Pages<OperationEvent> events(String id) {
    return events(id, 0);
  }

  /**
   * Lists the transitions of an operation that changed its status or requested to cancel it, oldest
   * first.
   *
   * @param id the id of the operation
   * @param pageSize the number of events per call, at most 100; 0 means 50
   * @return the events of all pages
   */
  public Pages<OperationEvent> events(String id, int pageSize) {
    ListEventsRequest.Builder first =
        ListEventsRequest.newBuilder().setOperationId(id).setPageSize(pageSize);
    return new Pages<>(
        token -> {
          ListEventsRequest request = first.clone().setPageToken(token).build();
          ListEventsResponse page = calls.send(OperationServiceGrpc.getListEventsMethod(), request);
          return new Pages.Page<>(
              page.getEventsList().stream().map(OperationEvent::of).toList(),
              page.getNextPageToken());
        });
  }

  /**
   * Waits for the end of an operation.
   *
   * @param id the id of the operation
   * @return the operation at its end
   */
  public Operation await(String id) {
    return await(id, FOREVER);
  }

  /**
   * Waits for the end of an operation.
   *
   * @param id the id of the operation
   * @param timeout the maximum wait
   * @return the operation at its end, or as it stands when the timeout has passed
   */
  public Operation await(String id, Duration timeout) {
    return LongPoll.untilTerminal(asked -> awaitOnce(id, asked), timeout);
  }

  private Operation awaitOnce(String id, Duration timeout) {
    WaitOperationRequest request =
        WaitOperationRequest.newBuilder().setOperationId(id).setTimeout(Times.to(timeout)).build();
    Duration limit = Times.sum(calls.deadline(), timeout);
    return Operation.of(
        calls.send(OperationServiceGrpc.getWaitOperationMethod(), request, limit).getOperation());
  }

  /**
   * Waits for the result of an operation.
   *
   * @param id the id of the operation
   * @return the result; empty if the worker sent none
   * @throws NoResultException if the operation failed or was cancelled
   */
  public Optional<Payload> result(String id) {
    return result(id, FOREVER);
  }

  /**
   * Waits for the result of an operation.
   *
   * @param id the id of the operation
   * @param timeout the maximum wait
   * @return the result; empty if the worker sent none
   * @throws NoResultException if the operation failed, was cancelled, or goes on
   */
  public Optional<Payload> result(String id, Duration timeout) {
    Operation operation = await(id, timeout);
    return switch (operation.status()) {
      case COMPLETED -> operation.result();
      case FAILED -> throw new OperationFailedException(operation);
      case CANCELLED -> throw new OperationCancelledException(operation);
      case PENDING, PROCESSING, UNKNOWN -> throw new StillRunningException(operation);
    };
  }

  /**
   * Watches an operation, from its present state to its end.
   *
   * @param id the id of the operation
   * @return the changes; close it if you leave it before its end
   */
  public Watch watch(String id) {
    return watch(id, 0);
  }

  /**
   * Watches an operation to its end.
   *
   * @param id the id of the operation
   * @param afterRevision the last revision that you have seen; 0 begins with the present state
   * @return the changes; close it if you leave it before its end
   */
  public Watch watch(String id, long afterRevision) {
    return new Watch(calls, id, afterRevision);
  }

  /**
   * Cancels an operation at once.
   *
   * @param id the id of the operation
   * @return the cancelled operation
   */
  public Operation cancel(String id) {
    return cancel(id, new CancelOptions());
  }

  /**
   * Cancels an operation, at once or with a grace for its worker.
   *
   * @param id the id of the operation
   * @param options the options
   * @return the operation
   */
  public Operation cancel(String id, CancelOptions options) {
    CancelOperationResponse answer =
        calls.send(OperationServiceGrpc.getCancelOperationMethod(), options.toMessage(id));
    return Operation.of(answer.getOperation(), answer.getReplayed());
  }

  /**
   * Deletes an operation that has ended, and its result.
   *
   * @param id the id of the operation
   */
  public void delete(String id) {
    delete(id, new DeleteOptions());
  }

  /**
   * Deletes an operation that has ended, and its result.
   *
   * @param id the id of the operation
   * @param options the options
   */
  public void delete(String id, DeleteOptions options) {
    DeleteOperationRequest.Builder request = DeleteOperationRequest.newBuilder().setOperationId(id);
    calls.send(OperationServiceGrpc.getDeleteOperationMethod(), options.apply(request).build());
  }

  /**
   * Starts an operation by its id, calls the handler, and ends the operation with the outcome: as a
   * worker does, but every exception other than {@link RetryLater} fails it for good, because your
   * program decides about another attempt. While the service is unavailable, the end is tried again
   * for 5 minutes.
   *
   * @param id the id of the operation
   * @param options the options of the start
   * @param handler does the work, in this thread
   * @throws Exception that of the handler, or the reason why the operation could not be ended so
   */
  public void perform(String id, StartOptions options, Handler handler) throws Exception {
    Operation operation = workerCalls().start(id, options);
    new Execution(this, operation, handler, new Execution.Terms(false, END_TIMEOUT, ended -> {}))
        .perform();
  }

  /** {@return the calls of a worker of your own; a {@link Worker} makes them by itself} */
  public WorkerCalls workerCalls() {
    return new WorkerCalls(calls);
  }

  /** {@return the calls of a receiver of webhooks} */
  public WebhookCalls webhookCalls() {
    return new WebhookCalls(calls);
  }

  /**
   * Returns the channel, for the generated stubs, such as those of an admin. It adds the
   * credential, and nothing else: no deadline, no retries.
   *
   * @return the channel
   */
  public Channel channel() {
    return calls.channel();
  }

  /**
   * Ends the workers of the client, which release their operations, sends the last reports of
   * progress, and closes the connection. Calls in flight end.
   */
  @Override
  public void close() {
    workers.forEach(Worker::leaveClient);
    progress.close();
    calls.close();
    timer.shutdownNow();
    connection.shutdownNow();
    try {
      connection.awaitTermination(CLOSE_TIMEOUT.toMillis(), TimeUnit.MILLISECONDS);
    } catch (InterruptedException interruption) {
      Thread.currentThread().interrupt();
    }
  }

  ProgressStream progress() {
    return progress;
  }

  ReleaseQueue releases() {
    return releases;
  }

  ScheduledExecutorService timer() {
    return timer;
  }

  /** The workers that end with the client. */
  Set<Worker> workers() {
    return workers;
  }

  @Override
  public String toString() {
    return "Milepost[" + address + "]";
  }
}
