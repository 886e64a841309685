package dev.milepost.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;

/** Adds to every call the token, and the context of OpenTelemetry where the program has it. */
final class Credential implements ClientInterceptor {
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final TokenSource source;

  /** Takes no source for calls without a credential. */
  Credential(TokenSource source) {
    this.source = source;
  }

  @Override
  public <Q, R> ClientCall<Q, R> interceptCall(
      MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
    return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
      @Override
      public void start(Listener<R> listener, Metadata headers) {
        if (source != null) {
          headers.put(AUTHORIZATION, "Bearer " + token());
        }
        Tracing.inject(headers);
        super.start(listener, headers);
      }
    };
  }

  private String token() {
    try {
      return requireWord(ask());
    } catch (IllegalArgumentException problem) {
      throw refusal(Status.UNAUTHENTICATED, "the token source returned no word of ASCII", problem);
    }
  }

  /** Returns a token. A source that fails is as temporary as a service without an answer. */
  private String ask() {
    try {
      return source.token();
    } catch (InterruptedException problem) {
      throw CallInterruptedException.mark(problem);
    } catch (Throwable problem) { // of the user
      throw refusal(Status.UNAVAILABLE, "the token source failed: no call was made", problem);
    }
  }

  private static StatusRuntimeException refusal(Status status, String text, Throwable cause) {
    return new StatusRuntimeException(status.withDescription(text).withCause(cause));
  }

  /** Returns the token if it fits into a header. The exception does not show it. */
  static String requireWord(String token) {
    boolean isWord =
        token != null && !token.isEmpty() && token.chars().allMatch(c -> c > ' ' && c <= '~');
    if (!isWord) {
      throw new IllegalArgumentException(
          "an API key is one word of ASCII: this one is empty, or has a space or a line end");
    }
    return token;
  }
}
