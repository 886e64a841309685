package dev.milepost.client;

/**
 * Returns the API key or the token (JWT) of a call. It is asked before every try of every call, by
 * any thread, so it should keep a token for as long as that is valid.
 */
@FunctionalInterface
public interface TokenSource {
  /**
   * Returns the token of the next call.
   *
   * @return the token
   * @throws Exception if it has no token now: the call is tried again within its deadline, as if
   *     the service could not be reached, and a worker goes on
   */
  String token() throws Exception;
}
