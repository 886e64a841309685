package dev.milepost.client;

import dev.milepost.v1.ClaimOperationsRequest;
import java.time.Duration;
import java.util.Collection;

/** The options of a claim. */
public class ClaimOptions {
  private final ClaimOperationsRequest.Builder request = ClaimOperationsRequest.newBuilder();

  /** Creates options without a value. */
  public ClaimOptions() {}

  /**
   * Bounds the number of operations: 1 by default.
   *
   * @param count at most 100
   * @return these options
   */
  public ClaimOptions maxOperations(int count) {
    request.setMaxOperations(count);
    return this;
  }

  /**
   * Sets the time after which another worker gets an operation of a dead worker: 30 s by default.
   *
   * @param lease 5 s to 1 h
   * @return these options
   */
  public ClaimOptions lease(Duration lease) {
    request.setLease(Times.to(lease));
    return this;
  }

  /**
   * Names the worker, for people.
   *
   * @param name at most 255 characters
   * @return these options
   */
  public ClaimOptions worker(String name) {
    request.setWorker(name);
    return this;
  }

  /**
   * Sets how long the call waits for work; by default it does not.
   *
   * @param timeout the maximum wait
   * @return these options
   */
  public ClaimOptions timeout(Duration timeout) {
    request.setTimeout(Times.to(timeout));
    return this;
  }

  ClaimOperationsRequest toMessage(Collection<String> functions) {
    // Without a timeout, the service would wait until the deadline of the call.
    return request.clone().setTimeout(request.getTimeout()).addAllFunctions(functions).build();
  }
}
