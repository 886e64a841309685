package dev.milepost.testee;

import com.google.protobuf.Any;
import dev.milepost.client.MilepostException;
import dev.milepost.client.NoResultException;
import dev.milepost.client.NotVerifiedException;
import dev.milepost.client.Operation;
import dev.milepost.client.Payload;
import dev.milepost.client.WorkerStoppedException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.RecordComponent;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.Set;

/** Values of the client as JSON: names in snake case, durations in seconds. */
final class Output {
  private static final Set<String> DATA = Set.of("result", "checkpoint");
  private static final Set<String> NO_FIELDS = Set.of("message", "hashCode", "toString");

  private Output() {}

  /** Returns the fields of an operation by their names in the .proto files. */
  static Map<String, Object> ofOperation(Operation operation) throws ReflectiveOperationException {
    Map<String, Object> fields = new LinkedHashMap<>();
    for (Method method : Operation.class.getDeclaredMethods()) {
      boolean isField =
          Modifier.isPublic(method.getModifiers())
              && method.getParameterCount() == 0
              && !NO_FIELDS.contains(method.getName());
      if (isField) {
        put(fields, method.getName().replaceFirst("^is", ""), method.invoke(operation));
      }
    }
    return fields;
  }

  /** Returns the components of a record. */
  static Map<String, Object> ofRecord(Record value) throws ReflectiveOperationException {
    Map<String, Object> fields = new LinkedHashMap<>();
    for (RecordComponent component : value.getClass().getRecordComponents()) {
      put(fields, component.getName(), component.getAccessor().invoke(value));
    }
    return fields;
  }

  private static void put(Map<String, Object> fields, String name, Object value)
      throws ReflectiveOperationException {
    Object converted = convert(value);
    if (converted != null && !isEmpty(name, converted)) {
      fields.put(snake(name), converted == NULL ? null : converted);
    }
  }

  private static boolean isEmpty(String name, Object value) {
    return (value instanceof Map<?, ?> members && members.isEmpty() && !DATA.contains(name))
        || (value instanceof List<?> items && items.isEmpty() && !DATA.contains(name));
  }

  /** Stands for a payload that is null, which is not absent. */
  private static final Object NULL = new Object();

  private static Object convert(Object value) throws ReflectiveOperationException {
    if (value instanceof Optional<?> optional) {
      return optional.isPresent() ? convert(optional.get()) : null;
    }
    if (value instanceof OptionalDouble number) {
      return number.isPresent() ? number.getAsDouble() : null;
    }
    if (value instanceof Payload payload) {
      return payload.isNull() ? NULL : ofPayload(payload);
    }
    if (value instanceof OptionalInt number) {
      return number.isPresent() ? number.getAsInt() : null;
    }
    if (value instanceof Duration duration) {
      return duration.toNanos() / 1e9;
    }
    if (value instanceof Instant || value instanceof Enum<?>) {
      return value.toString();
    }
    if (value instanceof Record fields) {
      return ofRecord(fields);
    }
    if (value instanceof List<?> items) {
      return items.stream().map(Output::convertRecord).toList();
    }
    return value;
  }

  private static Object convertRecord(Object value) {
    try {
      return ofRecord((Record) value);
    } catch (ReflectiveOperationException impossible) {
      throw new LinkageError(impossible.getMessage(), impossible);
    }
  }

  /** Returns the JSON value, or the message that holds another one. */
  static Object ofPayload(Payload payload) {
    if (payload.isJson()) {
      return payload.value();
    }
    Any packed = payload.packed();
    String value = Base64.getEncoder().encodeToString(packed.getValue().toByteArray());
    return Map.of("$any", Map.of("type_url", packed.getTypeUrl(), "value", value));
  }

  static Map<String, Object> ofError(Throwable problem) {
    Map<String, Object> error = new LinkedHashMap<>();
    error.put("class", className(problem));
    error.put("reason", "");
    error.put("code", null);
    error.put("message", String.valueOf(problem.getMessage()));
    error.put("metadata", Map.of());
    error.put("violations", List.of());
    error.put("retry_after", null);
    if (problem instanceof MilepostException refusal) {
      error.put("reason", refusal.reason());
      // Without a response there is no code to compare.
      error.put("code", refusal instanceof NoResultException ? null : refusal.code().name());
      error.put("metadata", refusal.metadata());
      error.put("violations", refusal.violations().stream().map(Output::convertRecord).toList());
      error.put("retry_after", refusal.retryAfter().map(Output::seconds).orElse(null));
    }
    return error;
  }

  private static double seconds(Duration duration) {
    return duration.toNanos() / 1e9;
  }

  /** Returns the name of the class of the exception in the Python client. */
  static String className(Throwable problem) {
    boolean isOurs =
        problem instanceof MilepostException
            || problem instanceof NotVerifiedException
            || problem instanceof WorkerStoppedException;
    String name = problem.getClass().getSimpleName();
    if (!isOurs || name.equals("CallInterruptedException")) {
      return "Error";
    }
    boolean isError = name.equals("MilepostException") || name.equals("InternalException");
    return name.replace("Exception", isError ? "Error" : "");
  }

  private static String snake(String name) {
    return name.replaceAll("(?<=.)([A-Z])", "_$1").toLowerCase(Locale.ROOT);
  }
}
