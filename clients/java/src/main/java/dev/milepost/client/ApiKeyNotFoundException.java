package dev.milepost.client;

/** An unknown API key. */
public class ApiKeyNotFoundException extends NotFoundException {
  ApiKeyNotFoundException(Refusal refusal) {
    super(refusal);
  }
}
