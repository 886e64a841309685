package dev.milepost.client;

/** No signing secret yet: create an operation with a callback URL, or rotate. */
public class SigningSecretNotFoundException extends NotFoundException {
  SigningSecretNotFoundException(Refusal refusal) {
    super(refusal);
  }
}
