package dev.milepost.client;

/** An issuer of tokens that does not provide its keys to the service. */
public class IdentityProviderUnavailableException extends UnavailableException {
  IdentityProviderUnavailableException(Refusal refusal) {
    super(refusal);
  }
}
