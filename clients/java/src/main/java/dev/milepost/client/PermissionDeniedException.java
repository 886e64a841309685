package dev.milepost.client;

/** A credential without the role that the call requires. */
public class PermissionDeniedException extends MilepostException {
  PermissionDeniedException(Refusal refusal) {
    super(refusal);
  }
}
