package dev.milepost.client;

import dev.milepost.v1.ListDeliveriesRequest;
import java.util.Collection;

/** Filters of a list of webhooks. A webhook is listed if it matches every one. */
public class DeliveriesOptions {
  private final ListDeliveriesRequest.Builder request = ListDeliveriesRequest.newBuilder();

  /** Creates options without a value. */
  public DeliveriesOptions() {}

  /**
   * Selects the webhooks of one operation.
   *
   * @param id the id of the operation
   * @return these options
   */
  public DeliveriesOptions operationId(String id) {
    request.setOperationId(id);
    return this;
  }

  /**
   * Selects webhooks of these statuses.
   *
   * @param statuses the statuses; empty means all
   * @return these options
   */
  public DeliveriesOptions statuses(Collection<DeliveryStatus> statuses) {
    request.addAllStatuses(statuses.stream().map(DeliveryStatus::toMessage).toList());
    return this;
  }

  /**
   * Sets the number of webhooks per call: 50 by default.
   *
   * @param size at most 100
   * @return these options
   */
  public DeliveriesOptions pageSize(int size) {
    request.setPageSize(size);
    return this;
  }

  ListDeliveriesRequest toMessage() {
    return request.build();
  }
}
