package dev.milepost.client;

import dev.milepost.v1.ListOperationsRequest;
import dev.milepost.v1.OperationView;
import java.time.Instant;
import java.util.Collection;

/** Filters of a list. An operation is listed if it matches every one. */
public class ListOptions {
  private final ListOperationsRequest.Builder request = ListOperationsRequest.newBuilder();

  /** Creates options without a value. */
  public ListOptions() {}

  /**
   * Selects operations of these statuses.
   *
   * @param statuses the statuses; empty means all
   * @return these options
   */
  public ListOptions statuses(Collection<Status> statuses) {
    request.addAllStatuses(statuses.stream().map(Status::toMessage).toList());
    return this;
  }

  /**
   * Selects operations of one function.
   *
   * @param function the exact name
   * @return these options
   */
  public ListOptions function(String function) {
    request.setFunction(function);
    return this;
  }

  /**
   * Selects operations that were created at this time or later.
   *
   * @param time the earliest time
   * @return these options
   */
  public ListOptions createdFrom(Instant time) {
    request.setCreateTimeFrom(Times.to(time));
    return this;
  }

  /**
   * Selects operations that were created before this time.
   *
   * @param time the time after the latest
   * @return these options
   */
  public ListOptions createdBefore(Instant time) {
    request.setCreateTimeTo(Times.to(time));
    return this;
  }

  /**
   * Selects the operations of another owner, for admins.
   *
   * @param subject the owner
   * @return these options
   */
  public ListOptions owner(String subject) {
    request.setOwner(subject);
    return this;
  }

  /**
   * Asks for metadata, results, errors and checkpoints too.
   *
   * @return these options
   */
  public ListOptions full() {
    request.setView(OperationView.OPERATION_VIEW_FULL);
    return this;
  }

  /**
   * Sets the number of operations per call: 50 by default.
   *
   * @param size at most 100
   * @return these options
   */
  public ListOptions pageSize(int size) {
    request.setPageSize(size);
    return this;
  }

  ListOperationsRequest.Builder toMessage() {
    return request.clone();
  }
}
