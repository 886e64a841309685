package dev.milepost.client;

import io.grpc.Metadata;
import io.opentelemetry.api.GlobalOpenTelemetry;
import io.opentelemetry.context.Context;

/** Passes the context of OpenTelemetry on, if its API is on the class path. */
final class Tracing {
  private static final boolean IS_PRESENT = isPresent();

  private Tracing() {}

  static void inject(Metadata headers) {
    if (IS_PRESENT) {
      Api.inject(headers);
    }
  }

  private static boolean isPresent() {
    try {
      Class.forName(
          "io.opentelemetry.api.GlobalOpenTelemetry", false, Tracing.class.getClassLoader());
      return true;
    } catch (ClassNotFoundException | LinkageError absent) {
      return false;
    }
  }

  /** The part that is loaded only where the API is present. */
  private static final class Api {
    static void inject(Metadata headers) {
      GlobalOpenTelemetry.getPropagators()
          .getTextMapPropagator()
          .inject(Context.current(), headers, Api::set);
    }

    private static void set(Metadata headers, String name, String value) {
      headers.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value);
    }
  }
}
