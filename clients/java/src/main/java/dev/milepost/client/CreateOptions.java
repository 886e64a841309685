package dev.milepost.client;

import dev.milepost.v1.CreateOperationRequest;
import java.time.Duration;
import java.time.Instant;
import java.util.Collection;
import java.util.Map;

/** The options of a new operation. What is not set has its default. */
public class CreateOptions {
  private final CreateOperationRequest.Builder request = CreateOperationRequest.newBuilder();

  /** Creates options without a value. */
  public CreateOptions() {}

  /**
   * Sets the version of the function.
   *
   * @param version at most 255 characters
   * @return these options
   */
  public CreateOptions version(String version) {
    request.setVersion(version);
    return this;
  }

  /**
   * Sets data for the worker.
   *
   * @param metadata JSON of at most 65,536 bytes and 20 levels
   * @return these options
   */
  public CreateOptions metadata(Map<String, ?> metadata) {
    request.setMetadata(Json.toStruct(metadata));
    return this;
  }

  /**
   * Makes the call repeatable: another create with this id returns the same operation.
   *
   * @param id 1 to 255 letters, digits and {@code _ . : -}
   * @return these options
   */
  public CreateOptions requestId(String id) {
    request.setRequestId(id);
    return this;
  }

  /**
   * Sets the id of the request behind the operation.
   *
   * @param id at most 255 characters
   * @return these options
   */
  public CreateOptions originalRequestId(String id) {
    request.setOriginalRequestId(id);
    return this;
  }

  /**
   * Sets the URL that receives webhooks.
   *
   * @param url an https URL of a public host
   * @return these options
   */
  public CreateOptions callbackUrl(String url) {
    request.setCallbackUrl(url);
    return this;
  }

  /**
   * Selects the events that are sent; by default those of the end.
   *
   * @param types types such as operation.started
   * @return these options
   */
  public CreateOptions callbackEvents(Collection<String> types) {
    request.addAllCallbackEvents(types);
    return this;
  }

  /**
   * Sets the retention period: 24 h by default.
   *
   * @param ttl 60 s to 7 days
   * @return these options
   */
  public CreateOptions ttl(Duration ttl) {
    request.setTtl(Times.to(ttl));
    return this;
  }

  /**
   * Sets the suggested pause between polls: 5 s by default.
   *
   * @param pause 1 s to 1 h
   * @return these options
   */
  public CreateOptions retryAfter(Duration pause) {
    request.setRetryAfter(Times.to(pause));
    return this;
  }

  /**
   * Bounds the failed attempts: 3 by default.
   *
   * @param count at least 1
   * @return these options
   */
  public CreateOptions maxAttempts(int count) {
    request.setMaxAttempts(count);
    return this;
  }

  /**
   * Sets the pauses between the attempts.
   *
   * @param policy the pauses
   * @return these options
   */
  public CreateOptions retryPolicy(RetryPolicy policy) {
    request.setRetryPolicy(policy.toMessage());
    return this;
  }

  /**
   * Bounds the time without a worker.
   *
   * @param timeout 1 s to 7 days
   * @return these options
   */
  public CreateOptions queueTimeout(Duration timeout) {
    request.setQueueTimeout(Times.to(timeout));
    return this;
  }

  /**
   * Bounds one attempt.
   *
   * @param timeout 1 s to 7 days
   * @return these options
   */
  public CreateOptions runTimeout(Duration timeout) {
    request.setRunTimeout(Times.to(timeout));
    return this;
  }

  /**
   * Sets the time before which the operation cannot be claimed.
   *
   * @param time at most 30 days ahead
   * @return these options
   */
  public CreateOptions scheduleTime(Instant time) {
    request.setScheduleTime(Times.to(time));
    return this;
  }

  /**
   * Sets the priority among the operations of the owner: 5 by default.
   *
   * @param priority 0 to 9; a higher one is claimed first
   * @return these options
   */
  public CreateOptions priority(int priority) {
    request.setPriority(priority);
    return this;
  }

  /**
   * Sets a key that at most one active operation of the owner has.
   *
   * @param key 1 to 255 characters
   * @return these options
   */
  public CreateOptions uniqueKey(String key) {
    request.setUniqueKey(key);
    return this;
  }

  /**
   * Decides what happens if an active operation has the unique key.
   *
   * @param policy join it, or refuse the create
   * @return these options
   */
  public CreateOptions uniqueKeyPolicy(UniqueKeyPolicy policy) {
    request.setUniqueKeyPolicy(policy.toMessage());
    return this;
  }

  CreateOperationRequest toMessage(String function) {
    return request.clone().setFunction(function).build();
  }
}
