package dev.milepost.client;

import java.time.Instant;
import java.util.Map;
import java.util.Optional;

/**
 * The content of a webhook. Receivers must accept fields and types that are new.
 *
 * @param id the id, which is the same when the webhook is sent again
 * @param type the type of the event, such as operation.completed
 * @param timestamp the time of the event, if it has one
 * @param data the operation as it was after the event: operation_id, status, revision, and so on
 */
public record WebhookEvent(
    String id, String type, Optional<Instant> timestamp, Map<String, Object> data) {}
