package dev.milepost.client;

import java.io.Serializable;

/**
 * One invalid field of a request.
 *
 * @param field the path of the field
 * @param problem the rule that the field violates
 */
public record Violation(String field, String problem) implements Serializable {}
