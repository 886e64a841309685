package dev.milepost.testee;

import com.sun.management.OperatingSystemMXBean;
import dev.milepost.client.Milepost;
import dev.milepost.client.Report;
import dev.milepost.client.Work;
import dev.milepost.client.Worker;
import dev.milepost.v1.GetOperationRequest;
import dev.milepost.v1.OperationServiceGrpc;
import dev.milepost.v1.StreamProgressRequest;
import dev.milepost.v1.StreamProgressResponse;
import dev.milepost.v1.WorkerServiceGrpc;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The loops that compare the client with its bare stub. */
final class Bench {
  private static final String ID = "op_0123456789abcdef01234567";
  private static final long DEADLINE_S = 10;

  /** The time between two reports of one operation. */
  private static final double INTERVAL_S = 0.1;

  private final String address;
  private final String apiKey;
  private final Command command;
  private final double seconds;
  private final int concurrency;

  private Bench(Command command) {
    this.command = command;
    address = command.text("address");
    apiKey = command.text("api_key");
    seconds = command.arguments().get("seconds").getAsDouble();
    concurrency = command.arguments().get("concurrency").getAsInt();
  }

  static Object run(Command command) throws Exception {
    Bench bench = new Bench(command);
    return switch (command.text("loop")) {
      case "unary" -> bench.unary();
      case "unary_stub" -> bench.unaryStub();
      case "stream" -> bench.stream();
      case "stream_stub" -> bench.streamStub();
      default -> throw new Main.UnsupportedException();
    };
  }

  /** One round of a loop. */
  private interface Round {
    void run() throws Exception;
  }

  /** The report of one operation. */
  private interface Reporter {
    void report(int number, double progress) throws Exception;
  }

  /** Runs so many threads, and returns the sum of their rounds and what they took. */
  private Object measure(List<Callable<Integer>> loops) throws Exception {
    ExecutorService threads = Executors.newFixedThreadPool(concurrency);
    long begin = System.nanoTime();
    long cpu = cpuTime();
    int calls = 0;
    for (Future<Integer> count : threads.invokeAll(loops)) {
      try {
        calls += count.get();
      } catch (java.util.concurrent.ExecutionException problem) {
        throw (Exception) problem.getCause();
      }
    }
    threads.shutdown();
    return Map.of(
        "calls", calls,
        "seconds", (System.nanoTime() - begin) / 1e9,
        "cpu_seconds", (cpuTime() - cpu) / 1e9);
  }

  private static long cpuTime() {
    return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
        .getProcessCpuTime();
  }

  private Object repeat(Round round) throws Exception {
    List<Callable<Integer>> loops = new ArrayList<>();
    for (int i = 0; i < concurrency; i++) {
      loops.add(
          () -> {
            long end = System.nanoTime() + (long) (seconds * 1e9);
            int count = 0;
            while (System.nanoTime() < end) {
              round.run();
              count++;
            }
            return count;
          });
    }
    return measure(loops);
  }

  /** Reports once in each interval, each operation at a moment of its own. */
  private Object pace(Reporter reporter) throws Exception {
    List<Callable<Integer>> loops = new ArrayList<>();
    for (int i = 0; i < concurrency; i++) {
      int number = i;
      loops.add(
          () -> {
            int rounds = (int) (seconds / INTERVAL_S);
            double next = System.nanoTime() / 1e9 + INTERVAL_S * number / concurrency;
            for (int count = 0; count < rounds; count++) {
              sleepUntil(next);
              reporter.report(number, (double) count / rounds);
              next += INTERVAL_S;
            }
            return rounds;
          });
    }
    return measure(loops);
  }

  private static void sleepUntil(double time) throws InterruptedException {
    long left = (long) (time * 1e9) - System.nanoTime();
    if (left > 0) {
      TimeUnit.NANOSECONDS.sleep(left);
    }
  }

  private Object unary() throws Exception {
    try (Milepost client = Milepost.builder(address).apiKey(apiKey).build()) {
      return repeat(() -> client.get(ID));
    }
  }

  private ManagedChannel open() {
    return Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
  }

  private Channel authorized(ManagedChannel channel) {
    Metadata headers = new Metadata();
    headers.put(
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + apiKey);
    return ClientInterceptors.intercept(
        channel, MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  private Object unaryStub() throws Exception {
    ManagedChannel channel = open();
    try {
      OperationServiceGrpc.OperationServiceBlockingStub stub =
          OperationServiceGrpc.newBlockingStub(authorized(channel));
      return repeat(
          () ->
              stub.withDeadlineAfter(DEADLINE_S, TimeUnit.SECONDS)
                  .getOperation(GetOperationRequest.newBuilder().setOperationId(ID).build()));
    } finally {
      channel.shutdownNow();
    }
  }

  private Object stream() throws Exception {
    BlockingQueue<Work> begun = new LinkedBlockingQueue<>();
    CountDownLatch finished = new CountDownLatch(1);
    try (Milepost client = Milepost.builder(address).apiKey(apiKey).build()) {
      Worker worker =
          Worker.builder(client)
              .handle(
                  command.texts("functions").get(0),
                  work -> {
                    begun.add(work);
                    finished.await();
                    return null;
                  })
              .concurrency(concurrency)
              .build();
      Thread thread = new Thread(worker::run);
      thread.start();
      List<Work> works = new ArrayList<>();
      while (works.size() < concurrency) {
        works.add(begun.take());
      }
      Object measured =
          pace((number, progress) -> works.get(number).report(new Report().progress(progress)));
      finished.countDown();
      worker.stop();
      thread.join();
      return measured;
    }
  }

  /** Notes the end of the answers. */
  private record Answers(CompletableFuture<Void> end)
      implements StreamObserver<StreamProgressResponse> {
    @Override
    public void onNext(StreamProgressResponse answer) {}

    @Override
    public void onError(Throwable problem) {
      end.completeExceptionally(problem);
    }

    @Override
    public void onCompleted() {
      end.complete(null);
    }
  }

  private Object streamStub() throws Exception {
    ManagedChannel channel = open();
    try {
      Answers answers = new Answers(new CompletableFuture<>());
      StreamObserver<StreamProgressRequest> requests =
          WorkerServiceGrpc.newStub(authorized(channel)).streamProgress(answers);
      Object measured =
          pace(
              (number, progress) -> {
                StreamProgressRequest request =
                    StreamProgressRequest.newBuilder()
                        .setOperationId(String.format("op_%024x", number))
                        .setAttempt(1)
                        .setProgress(progress)
                        .build();
                synchronized (requests) {
                  requests.onNext(request);
                }
              });
      requests.onCompleted();
      answers.end().get();
      return measured;
    } finally {
      channel.shutdownNow();
    }
  }
}
