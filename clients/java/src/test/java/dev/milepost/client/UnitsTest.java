package dev.milepost.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.Int32Value;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Status.Code;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.file.Files;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;

/** The parts that need no service. */
class UnitsTest {
  private static MilepostException refusal(Code code, String reason) {
    return Refusals.typed(Refusal.of(code, reason, "m", Map.of()));
  }

  @Test
  void everyDocumentedReasonHasAClassOfItsName() throws Exception {
    String contract = Files.readString(Service.root().resolve("clients/README.md"));
    Matcher rows = Pattern.compile("(?m)^\\| `([A-Z_]+)` \\| [A-Z_]+ \\|").matcher(contract);
    int count = 0;
    while (rows.find()) {
      count++;
      MilepostException found = refusal(Code.UNKNOWN, rows.group(1));
      String name = found.getClass().getSimpleName().toLowerCase(Locale.ROOT);
      String expected = rows.group(1).replace("_", "").toLowerCase(Locale.ROOT) + "exception";
      assertEquals(expected, name);
      assertEquals(rows.group(1), found.reason());
    }
    assertEquals(Refusals.BY_REASON.size(), count);
  }

  @Test
  void unknownReasonsAreTreatedAsTheirCode() {
    assertInstanceOf(ConflictException.class, refusal(Code.ABORTED, "NEW_REASON"));
    assertEquals(MilepostException.class, refusal(Code.DATA_LOSS, "NEW_REASON").getClass());
    Refusal cancelled =
        Refusal.of(Code.UNKNOWN, "ILLEGAL_TRANSITION", "m", Map.of("status", "CANCELLED"));
    assertInstanceOf(CancelledException.class, Refusals.typed(cancelled));
  }

  @Test
  void onlyBrokenCallsAreTriedAgain() {
    List<Code> broken =
        List.of(
            Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED, Code.DEADLINE_EXCEEDED);
    for (Code code : Code.values()) {
      assertEquals(broken.contains(code), Disruption.isPassing(refusal(code, "")), code::name);
      boolean isRetried = Disruption.isPassing(refusal(code, "NEW_REASON"));
      assertEquals(code == Code.UNAVAILABLE, isRetried, code::name);
    }
  }

  @Test
  void exceptionsCanBeSerialised() throws Exception {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    new ObjectOutputStream(bytes).writeObject(refusal(Code.ABORTED, "LOST_RACE"));
    Object read = new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray())).readObject();
    assertEquals("LOST_RACE", ((LostRaceException) read).reason());
  }

  private static List<Object> nested(int levels) {
    return levels == 0 ? List.of() : List.of(nested(levels - 1));
  }

  @Test
  void valuesThatJsonCannotHoldAreRefused() {
    List<Object> cycle = new ArrayList<>();
    cycle.add(cycle);
    for (Object value :
        List.of(
            (1L << 53) + 1,
            -(1L << 53) - 1,
            BigInteger.TEN.pow(30),
            new BigDecimal(BigInteger.TEN.pow(30)),
            Double.NaN,
            Float.POSITIVE_INFINITY,
            "a\ud800b",
            "\udc00\ud800",
            Map.of("\ud800", 1),
            Map.of(1, 2),
            nested(40),
            cycle,
            new Object(),
            new AtomicInteger(1),
            (Runnable) () -> {})) {
      assertThrows(NotJsonException.class, () -> Json.toAny(value), value.getClass()::toString);
    }
  }

  /** A private record in a record. */
  private record Point(int x, Optional<String> none) {}

  @SuppressWarnings("ArrayRecordComponent") // users do it
  private record Place(String name, float[] at, Status status) {}

  @Test
  void valuesOfJavaBecomeJson() {
    Map<String, Object> withNull = new HashMap<>();
    withNull.put("n", null);
    assertEquals(0x1p53, Payload.of(Json.toAny(1L << 53)).value());
    assertEquals(1e300, Payload.of(Json.toAny(new BigDecimal("1e300"))).value());
    assertEquals(withNull, Payload.of(Json.toAny(withNull)).asMap());
    assertEquals(
        Arrays.asList("😀", null), Payload.of(Json.toAny(new Object[] {"😀", null})).asList());
    Map<String, Object> place = Map.of("name", "a", "at", List.of(0.5, 1.0), "status", "FAILED");
    Place record = new Place("a", new float[] {0.5f, 1}, Status.FAILED);
    assertEquals(place, Payload.of(Json.toAny(record)).asMap());
    assertThrows(NotJsonException.class, () -> Json.toAny(new Point(1, Optional.empty())));
    Payload nested = Payload.of(Json.toAny(Map.of("a", Map.of("b", 7))));
    assertEquals(7, nested.get("a").get("b").asLong());
    assertEquals(nested.get("a"), Payload.of(Json.toAny(nested.get("a"))));
    assertThrows(ArithmeticException.class, () -> Payload.of(Json.toAny(0.5)).asLong());
    assertTrue(Payload.NULL.isNull());
    assertEquals(Payload.NULL, Payload.of(Json.toAny(Payload.NULL)));
  }

  @Test
  void otherMessagesAreKeptAsTheyAre() {
    Payload message = Payload.of(Any.pack(Int32Value.of(7)));
    assertFalse(message.isJson());
    assertEquals(Int32Value.of(7), message.unpack(Int32Value.class));
    assertThrows(IllegalStateException.class, message::value);
    Any undecodable =
        Any.newBuilder()
            .setTypeUrl("type.googleapis.com/google.protobuf.Value")
            .setValue(ByteString.copyFrom(new byte[] {-1}))
            .build();
    assertEquals(undecodable, Payload.of(undecodable).packed());
  }

  @Test
  void valuesOfANewerServiceAreUnknown() {
    Operation operation =
        Operation.of(
            dev.milepost.v1.Operation.newBuilder().setStatusValue(99).setNextStepValue(99).build());
    assertEquals(Status.UNKNOWN, operation.status());
    assertFalse(operation.status().isTerminal());
    assertEquals(Optional.empty(), operation.nextStep());
  }

  @Test
  void loopbackAddressesNeedNoEncryption() {
    for (String address :
        List.of(
            "127.0.0.1:7450",
            "localhost:1",
            "[::1]:1",
            "::1",
            "unix:/tmp/x",
            "dns:///localhost:1",
            "dns:127.9.9.9:1",
            "LOCALHOST")) {
      assertTrue(Address.isLoopback(address), address);
    }
    for (String address :
        List.of(
            "127.0.0.1.example.com:1",
            "localhost.example.com:1",
            "10.0.0.1:1",
            "example.com",
            "[2001:db8::1]:1",
            "dns:///example.com:1")) {
      assertFalse(Address.isLoopback(address), address);
    }
    assertEquals("[::1]", Address.target("::1"));
    assertEquals("127.0.0.1:1", Address.target("127.0.0.1:1"));
  }

  @Test
  void addressesAreChecked() {
    assertThrows(NullPointerException.class, () -> Milepost.builder(null));
    for (String address :
        List.of("", "http://127.0.0.1:1", "https://example.com", "a:70000", "[::1]:99999999")) {
      Exception refusal =
          assertThrows(IllegalArgumentException.class, () -> Milepost.builder(address).build());
      assertTrue(refusal.getMessage().contains("such as 127.0.0.1:7450"), refusal.getMessage());
    }
  }

  @Test
  void settingsAreCheckedAndNeverShowTheKey() {
    for (String key : List.of("", "mk_secret\n", "mk secret", "mk_ü")) {
      IllegalArgumentException problem =
          assertThrows(
              IllegalArgumentException.class, () -> Milepost.builder("127.0.0.1:1").apiKey(key));
      assertFalse(problem.getMessage().contains("mk_"));
    }
    assertThrows(
        IllegalArgumentException.class,
        () -> Milepost.builder("127.0.0.1:1").deadline(Duration.ZERO));
    MilepostBuilder both =
        Milepost.builder("127.0.0.1:1").insecure().tls(InsecureChannelCredentials.create());
    assertThrows(IllegalStateException.class, both::build);
    try (Milepost client = Milepost.builder("127.0.0.1:1").apiKey("mk_secret").build()) {
      assertFalse(client.toString().contains("mk_secret"));
      assertThrows(IllegalStateException.class, () -> Worker.builder(client).build());
      assertThrows(IllegalArgumentException.class, () -> Worker.builder(client).concurrency(1_001));
    }
  }

  @Test
  void pausesGrowAndHonourTheService() {
    Backoff backoff = new Backoff(Duration.ofSeconds(1));
    MilepostException asked =
        Refusals.typed(
            new Refusal(
                Code.UNAVAILABLE, "", "m", Map.of(), List.of(), Duration.ofMinutes(1), null));
    for (int millis : new int[] {50, 100, 200, 400, 800, 1000, 1000}) {
      long pause = backoff.pause(asked) - Duration.ofMinutes(1).toNanos();
      long bound = Duration.ofMillis(millis).toNanos();
      assertTrue(pause >= bound / 2 && pause <= bound, () -> pause + " of " + bound);
    }
  }

  @Test
  void negativeDurationsHaveOneSign() {
    com.google.protobuf.Duration message = Times.to(Duration.ofMillis(-1500));
    assertEquals(List.of(-1L, -500_000_000), List.of(message.getSeconds(), message.getNanos()));
    assertEquals(Duration.ofMillis(-1500), Times.of(message));
  }

  @Test
  void versionIsThatOfThePom() throws Exception {
    String pom = Files.readString(Service.root().resolve("clients/java/pom.xml"));
    assertTrue(pom.contains("<version>" + Version.VALUE + "</version>"));
  }
}
