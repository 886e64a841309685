package dev.milepost.client;

import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import java.time.Duration;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/**
 * Lets a channel connect again soon after it was lost. The pauses of gRPC grow up to two minutes,
 * and it has no setting for them; but it connects at once when it is asked to.
 *
 * <p>A replica may be away while others serve, which the state of the channel does not show. So the
 * channel is asked every 2 s, which does nothing to connections that work.
 */
final class Reconnection {
  private static final Duration FIRST_PAUSE = Duration.ofMillis(200);
  private static final Duration MAX_PAUSE = Duration.ofSeconds(2);

  private final ManagedChannel channel;
  private final ScheduledExecutorService timer;
  private final Backoff backoff = new Backoff(FIRST_PAUSE, MAX_PAUSE);

  private Reconnection(ManagedChannel channel, ScheduledExecutorService timer) {
    this.channel = channel;
    this.timer = timer;
  }

  static void keep(ManagedChannel channel, ScheduledExecutorService timer) {
    Reconnection reconnection = new Reconnection(channel, timer);
    reconnection.watch();
    timer.scheduleWithFixedDelay(
        channel::resetConnectBackoff,
        MAX_PAUSE.toMillis(),
        MAX_PAUSE.toMillis(),
        TimeUnit.MILLISECONDS);
  }

  /** Begins to reconnect whenever the channel is lost. */
  private synchronized void watch() {
    ConnectivityState state = channel.getState(false);
    if (state == ConnectivityState.TRANSIENT_FAILURE) {
      reconnect();
    } else if (state == ConnectivityState.READY) {
      backoff.reset();
    }
    if (state != ConnectivityState.SHUTDOWN) {
      channel.notifyWhenStateChanged(state, this::watch);
    }
  }

  private synchronized void reconnect() {
    if (channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE && !timer.isShutdown()) {
      timer.schedule(this::connect, backoff.pause(), TimeUnit.NANOSECONDS);
    }
  }

  private void connect() {
    channel.resetConnectBackoff();
    reconnect();
  }
}
