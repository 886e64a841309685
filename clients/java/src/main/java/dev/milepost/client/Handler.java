package dev.milepost.client;

/**
 * Does the work of one operation.
 *
 * <p>The result completes the operation. It is null for no result, {@link Payload#NULL} for the
 * JSON value null, a protobuf message, or JSON: a text, a number, a Boolean, a collection, an
 * array, a map with texts as keys, a record (an object of its components), or a constant of an enum
 * (its name).
 *
 * <p>Whatever is thrown, even an error such as StackOverflowError, ends the attempt. The operation
 * is tried again, while it has attempts left, unless that is a {@link PermanentFailure}.
 */
@FunctionalInterface
public interface Handler {
  /**
   * Does the work. The thread is interrupted when the handler must stop: {@link Work#reason} says
   * why.
   *
   * @param work the operation, and the reports about it
   * @return the result of the operation
   * @throws Exception if the attempt fails
   */
  Object handle(Work work) throws Exception;
}
