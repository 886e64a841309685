package dev.milepost.client;

import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptor;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.TlsChannelCredentials;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.TimeUnit;

/** Sets up a {@link Milepost}. */
public final class MilepostBuilder {
  /** The bound of one call, with all its tries, unless another one is set. */
  public static final Duration DEFAULT_DEADLINE = Duration.ofSeconds(10);

  /** Finds a dead connection during a call. The service admits a ping every 10 s. */
  private static final Duration KEEPALIVE_TIME = Duration.ofSeconds(60);

  private static final Duration KEEPALIVE_TIMEOUT = Duration.ofSeconds(10);

  private final String address;
  private final List<ClientInterceptor> interceptors = new ArrayList<>();
  private TokenSource source;
  private ChannelCredentials credentials;
  private boolean isInsecure;
  private Duration deadline = DEFAULT_DEADLINE;

  MilepostBuilder(String address) {
    this.address =
        Objects.requireNonNull(address, "the address is null; it is such as 127.0.0.1:7450");
  }

  /**
   * Sends an API key, or a token (JWT), with every call. It is never shown.
   *
   * @param key the key; null for calls without one
   * @return this builder
   * @throws IllegalArgumentException if the key is not one word of ASCII
   */
  public MilepostBuilder apiKey(String key) {
    String word = key == null ? null : Credential.requireWord(key);
    source = word == null ? null : () -> word;
    return this;
  }

  /**
   * Sends the token that the source returns with every call, so that it can be renewed.
   *
   * @param tokens the source
   * @return this builder
   */
  public MilepostBuilder tokenSource(TokenSource tokens) {
    source = Objects.requireNonNull(tokens);
    return this;
  }

  /**
   * Encrypts with these credentials, for an authority or a client certificate of your own; see
   * {@link TlsChannelCredentials}. Without them, the client uses TLS with the roots of Java, and no
   * encryption to the loopback interface.
   *
   * @param tls the credentials
   * @return this builder
   */
  public MilepostBuilder tls(ChannelCredentials tls) {
    credentials = Objects.requireNonNull(tls);
    return this;
  }

  /**
   * Allows an unencrypted channel to another machine, which exposes the API key.
   *
   * @return this builder
   */
  public MilepostBuilder insecure() {
    isInsecure = true;
    return this;
  }

  /**
   * Bounds each call, with all its tries.
   *
   * @param limit the time; 10 s by default
   * @return this builder
   * @throws IllegalArgumentException if it is not positive
   */
  public MilepostBuilder deadline(Duration limit) {
    if (limit.isNegative() || limit.isZero()) {
      throw new IllegalArgumentException("the deadline of a call is not positive");
    }
    deadline = limit;
    return this;
  }

  /**
   * Adds an interceptor of gRPC.
   *
   * @param interceptor the interceptor
   * @return this builder
   */
  public MilepostBuilder intercept(ClientInterceptor interceptor) {
    interceptors.add(interceptor);
    return this;
  }

  /**
   * Returns a client, which connects with the first call.
   *
   * @return the client
   * @throws IllegalStateException if both TLS and no encryption are asked for
   */
  public Milepost build() {
    if (credentials != null && isInsecure) {
      throw new IllegalStateException("tls and insecure exclude each other");
    }
    return new Milepost(address, open(), new Credential(source), deadline);
  }

  private ManagedChannel open() {
    boolean isPlain = credentials == null && (isInsecure || Address.isLoopback(address));
    ManagedChannelBuilder<?> channel =
        Grpc.newChannelBuilder(Address.target(address), isPlain ? plain() : encrypted());
    if (isPlain) {
      channel.proxyDetector(target -> null); // a proxy would see the API key
    }
    return channel
        .userAgent("milepost-client-java/" + Version.VALUE)
        .keepAliveTime(KEEPALIVE_TIME.toSeconds(), TimeUnit.SECONDS)
        .keepAliveTimeout(KEEPALIVE_TIMEOUT.toSeconds(), TimeUnit.SECONDS)
        // The client retries by rules of its own, and the operator bounds the answers.
        .disableRetry()
        .disableServiceConfigLookUp()
        .maxInboundMessageSize(Integer.MAX_VALUE)
        // The addresses of a name stand for replicas.
        .defaultLoadBalancingPolicy("round_robin")
        .intercept(interceptors)
        .build();
  }

  private static ChannelCredentials plain() {
    return InsecureChannelCredentials.create();
  }

  private ChannelCredentials encrypted() {
    return credentials != null ? credentials : TlsChannelCredentials.create();
  }
}
