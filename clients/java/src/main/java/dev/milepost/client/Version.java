package dev.milepost.client;

/** The version of this client, a part of the user agent of every call. */
final class Version {
  static final String VALUE = "0.1.0";

  private Version() {}
}
