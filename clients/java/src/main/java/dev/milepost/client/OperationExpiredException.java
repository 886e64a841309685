package dev.milepost.client;

/** Your own operation, which has expired. */
public class OperationExpiredException extends OperationNotFoundException {
  OperationExpiredException(Refusal refusal) {
    super(refusal);
  }
}
