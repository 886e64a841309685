package dev.milepost.testee;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonPrimitive;
import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import dev.milepost.client.Payload;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.time.Duration;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/** One command: its arguments, as values of the client. */
record Command(JsonObject arguments) {
  boolean has(String name) {
    return arguments.has(name) && !arguments.get(name).isJsonNull();
  }

  String text(String name) {
    return has(name) ? arguments.get(name).getAsString() : null;
  }

  boolean isTrue(String name) {
    return has(name) && arguments.get(name).getAsBoolean();
  }

  Command object(String name) {
    return new Command(arguments.getAsJsonObject(name));
  }

  List<String> texts(String name) {
    List<String> texts = new ArrayList<>();
    if (has(name)) {
      arguments.getAsJsonArray(name).forEach(item -> texts.add(item.getAsString()));
    }
    return texts;
  }

  List<Command> objects(String name) {
    List<Command> objects = new ArrayList<>();
    arguments
        .getAsJsonArray(name)
        .forEach(item -> objects.add(new Command(item.getAsJsonObject())));
    return objects;
  }

  Duration duration(String name) {
    return has(name)
        ? Duration.ofNanos(arguments.get(name).getAsBigDecimal().movePointRight(9).longValue())
        : null;
  }

  /** Passes the text on, if it is present. */
  void withText(String name, Consumer<String> use) {
    if (has(name)) {
      use.accept(text(name));
    }
  }

  void withInt(String name, Consumer<Integer> use) {
    if (has(name)) {
      use.accept(arguments.get(name).getAsInt());
    }
  }

  void withLong(String name, Consumer<Long> use) {
    if (has(name)) {
      use.accept(arguments.get(name).getAsLong());
    }
  }

  void withDouble(String name, Consumer<Double> use) {
    if (has(name)) {
      use.accept((Double) number(value(arguments.get(name))));
    }
  }

  private static Object number(Object value) {
    return value instanceof Number number ? (Object) number.doubleValue() : value;
  }

  void withDuration(String name, Consumer<Duration> use) {
    if (has(name)) {
      use.accept(duration(name));
    }
  }

  void withTime(String name, Consumer<Instant> use) {
    if (has(name)) {
      use.accept(OffsetDateTime.parse(text(name)).toInstant());
    }
  }

  /** Returns a result or a checkpoint: null if it is absent, and the value null for null. */
  Object payload(String name) {
    if (!arguments.has(name)) {
      return null;
    }
    Object value = value(arguments.get(name));
    return value == null ? Payload.NULL : value;
  }

  /** Returns a JSON object. */
  Map<String, Object> members(String name) {
    Map<String, Object> members = new LinkedHashMap<>();
    arguments
        .getAsJsonObject(name)
        .entrySet()
        .forEach(member -> members.put(member.getKey(), value(member.getValue())));
    return members;
  }

  /** Returns the value, with those that JSON cannot hold. */
  private static Object value(JsonElement element) {
    if (element.isJsonArray()) {
      return list(element.getAsJsonArray());
    }
    if (element.isJsonObject()) {
      return object(element.getAsJsonObject());
    }
    return element.isJsonNull() ? null : primitive(element.getAsJsonPrimitive());
  }

  private static Object primitive(JsonPrimitive primitive) {
    if (primitive.isBoolean()) {
      return primitive.getAsBoolean();
    }
    if (primitive.isString()) {
      return primitive.getAsString();
    }
    BigDecimal number = primitive.getAsBigDecimal();
    boolean isInteger = primitive.getAsString().matches("-?\\d+");
    return isInteger ? number.toBigIntegerExact() : (Object) number.doubleValue();
  }

  private static List<Object> list(JsonArray array) {
    List<Object> items = new ArrayList<>();
    array.forEach(item -> items.add(value(item)));
    return items;
  }

  private static Object object(JsonObject object) {
    if (object.size() == 1) {
      String name = object.keySet().iterator().next();
      JsonElement content = object.get(name);
      switch (name) {
        case "$integer" -> {
          return new BigInteger(content.getAsString());
        }
        case "$number" -> {
          return Double.valueOf(content.getAsString());
        }
        case "$utf16" -> {
          StringBuilder text = new StringBuilder();
          content.getAsJsonArray().forEach(unit -> text.append((char) unit.getAsInt()));
          return text.toString();
        }
        case "$cycle" -> {
          List<Object> cycle = new ArrayList<>();
          cycle.add(cycle);
          return cycle;
        }
        case "$unserialisable" -> {
          return new Object();
        }
        case "$any" -> {
          return any(content.getAsJsonObject());
        }
        default -> {}
      }
    }
    Map<String, Object> members = new LinkedHashMap<>();
    object.entrySet().forEach(member -> members.put(member.getKey(), value(member.getValue())));
    return members;
  }

  private static Any any(JsonObject packed) {
    byte[] value = Base64.getDecoder().decode(packed.get("value").getAsString());
    return Any.newBuilder()
        .setTypeUrl(packed.get("type_url").getAsString())
        .setValue(ByteString.copyFrom(value))
        .build();
  }
}
