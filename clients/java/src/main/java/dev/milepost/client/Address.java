package dev.milepost.client;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The address of a service: its target for gRPC, and whether it stays on this machine. */
final class Address {
  private static final Pattern HOST =
      Pattern.compile(
          "(?:dns:(?://[^/]*/)?)?(?:(?:\\[(?<bracketed>[^]]+)]|(?<plain>[^:]+))(?::(?<port>\\d+))?|(?<bare>.+))");
  private static final Pattern LOOPBACK =
      Pattern.compile("(?i)localhost|127(?:\\.\\d{1,3}){3}|::1|(?:0+:){7}0*1");

  private static final int MAX_PORT = 65_535;

  private Address() {}

  /** Returns true if every connection to the address stays on this machine. */
  static boolean isLoopback(String address) {
    if (address.startsWith("unix:")) {
      return true;
    }
    Matcher found = HOST.matcher(address);
    return found.matches() && LOOPBACK.matcher(host(found)).matches();
  }

  private static String host(Matcher found) {
    if (found.group("bracketed") != null) {
      return found.group("bracketed");
    }
    return found.group("plain") != null ? found.group("plain") : found.group("bare");
  }

  /**
   * Returns the address as gRPC wants it.
   *
   * @throws IllegalArgumentException if it is empty, a URL, or has no possible port
   */
  static String target(String address) {
    if (address.isEmpty() || address.matches("(?s)https?://.*") || !hasPossiblePort(address)) {
      throw new IllegalArgumentException(
          "\"" + address + "\" is not an address such as 127.0.0.1:7450");
    }
    boolean isBareIpv6 = address.matches("[0-9a-fA-F:.]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*");
    return isBareIpv6 ? "[" + address + "]" : address;
  }

  /** Returns false for a port that gRPC would try in vain, until the deadline of each call. */
  private static boolean hasPossiblePort(String address) {
    Matcher found = HOST.matcher(address);
    String port = found.matches() ? found.group("port") : null;
    return port == null || (port.length() <= 5 && Integer.parseInt(port) <= MAX_PORT);
  }
}
