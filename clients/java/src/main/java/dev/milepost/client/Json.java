package dev.milepost.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.ListValue;
import com.google.protobuf.Message;
import com.google.protobuf.NullValue;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import java.lang.reflect.Array;
import java.lang.reflect.RecordComponent;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** JSON values as messages and back, with everything refused that would change on its way. */
final class Json {
  /** The bound up to which a JSON number, which is a double, holds every integer exactly. */
  private static final BigInteger EXACT_INTEGERS = BigInteger.ONE.shiftLeft(53);

  /** The objects and lists in each other that fit into a message. The service accepts fewer. */
  private static final int MAX_LEVELS = 30;

  private Json() {}

  /**
   * Returns the value as a packed message, or null for null.
   *
   * <p>A message is packed as it is, and an Any is returned unchanged. Anything else is JSON, and
   * becomes a google.protobuf.Value.
   */
  static Any toAny(Object value) {
    if (value == null) {
      return null;
    }
    if (value instanceof Payload payload) {
      return payload.packed();
    }
    if (value instanceof Any packed) {
      return packed;
    }
    return Any.pack(value instanceof Message message ? message : toValue(value, 0));
  }

  /** Returns the JSON object as a message. */
  static Struct toStruct(Map<String, ?> members) {
    return toValue(members, 0).getStructValue();
  }

  /** Returns the JSON value as a message. */
  static Value toValue(Object value, int level) {
    if (level > MAX_LEVELS) {
      throw new NotJsonException("the value is nested too deep, or contains itself");
    }
    Value.Builder message = Value.newBuilder();
    if (value == null) {
      return message.setNullValue(NullValue.NULL_VALUE).build();
    } else if (value instanceof Boolean bool) {
      return message.setBoolValue(bool).build();
    } else if (value instanceof CharSequence text) {
      return message.setStringValue(wellFormed(text.toString())).build();
    } else if (value instanceof Number number) {
      return message.setNumberValue(toDouble(number)).build();
    } else if (value instanceof Enum<?> constant) {
      return message.setStringValue(constant.name()).build();
    } else if (value instanceof Map<?, ?> members) {
      return message.setStructValue(toObject(members, level)).build();
    } else if (value instanceof Record members) {
      return message.setStructValue(toObject(components(members), level)).build();
    } else if (value instanceof Collection<?> items) {
      return message.setListValue(toList(items, level)).build();
    } else if (value instanceof Payload payload) {
      return toValue(payload.value(), level);
    } else if (value.getClass().isArray()) {
      return message.setListValue(toList(items(value), level)).build();
    }
    throw new NotJsonException("a " + value.getClass().getName() + " is not JSON");
  }

  private static Struct toObject(Map<?, ?> members, int level) {
    Struct.Builder message = Struct.newBuilder();
    members.forEach(
        (name, member) -> {
          if (!(name instanceof CharSequence text)) {
            throw new NotJsonException("the names of a JSON object are text");
          }
          message.putFields(wellFormed(text.toString()), toValue(member, level + 1));
        });
    return message.build();
  }

  private static ListValue toList(Collection<?> items, int level) {
    ListValue.Builder message = ListValue.newBuilder();
    items.forEach(item -> message.addValues(toValue(item, level + 1)));
    return message.build();
  }

  private static Map<String, Object> components(Record members) {
    Map<String, Object> found = new LinkedHashMap<>();
    for (RecordComponent component : members.getClass().getRecordComponents()) {
      try {
        component.getAccessor().setAccessible(true); // of a private record
        found.put(component.getName(), component.getAccessor().invoke(members));
      } catch (ReflectiveOperationException | RuntimeException problem) {
        String name = members.getClass().getName() + "." + component.getName();
        throw new NotJsonException(name + " cannot be read", problem);
      }
    }
    return found;
  }

  private static List<Object> items(Object array) {
    List<Object> found = new ArrayList<>();
    for (int i = 0; i < Array.getLength(array); i++) {
      found.add(Array.get(array, i));
    }
    return found;
  }

  private static double toDouble(Number number) {
    if (number instanceof Long || number instanceof BigInteger) {
      requireExact(new BigInteger(number.toString()));
    } else if (number instanceof BigDecimal decimal && decimal.scale() == 0) {
      requireExact(decimal.unscaledValue());
    } else if (!isPlain(number)) {
      throw new NotJsonException("a " + number.getClass().getName() + " is not JSON");
    }
    double value = number.doubleValue();
    if (!Double.isFinite(value)) {
      throw new NotJsonException(number + " has no place in JSON");
    }
    return value;
  }

  private static boolean isPlain(Number number) {
    return number instanceof Double
        || number instanceof Float
        || number instanceof Integer
        || number instanceof Short
        || number instanceof Byte
        || number instanceof BigDecimal;
  }

  private static void requireExact(BigInteger number) {
    if (number.abs().compareTo(EXACT_INTEGERS) > 0) {
      throw new NotJsonException(
          "an integer above 2**53 would lose digits in JSON: send it as text");
    }
  }

  /** Returns the text if it is Unicode; a lone surrogate would arrive as a question mark. */
  static String wellFormed(String text) {
    for (int i = 0; i < text.length(); i++) {
      char unit = text.charAt(i);
      if (Character.isSurrogate(unit)) {
        boolean isPair = i + 1 < text.length() && Character.isSurrogatePair(unit, text.charAt(++i));
        if (!isPair) {
          throw new NotJsonException("a text holds a lone surrogate, which is not Unicode");
        }
      }
    }
    return text;
  }

  /** Returns true for a message that holds JSON. */
  static boolean isJson(Any packed) {
    return packed.is(Value.class) || packed.is(Struct.class) || packed.is(ListValue.class);
  }

  /** Returns the plain value of packed JSON. */
  static Object fromAny(Any packed) throws InvalidProtocolBufferException {
    if (packed.is(Struct.class)) {
      return fromStruct(packed.unpack(Struct.class));
    }
    if (packed.is(ListValue.class)) {
      return fromList(packed.unpack(ListValue.class));
    }
    return fromValue(packed.unpack(Value.class));
  }

  /** Returns the plain value: a map, a list, a text, a Double, a Boolean or null. */
  static Object fromValue(Value value) {
    return switch (value.getKindCase()) {
      case BOOL_VALUE -> value.getBoolValue();
      case NUMBER_VALUE -> value.getNumberValue();
      case STRING_VALUE -> value.getStringValue();
      case STRUCT_VALUE -> fromStruct(value.getStructValue());
      case LIST_VALUE -> fromList(value.getListValue());
      case NULL_VALUE, KIND_NOT_SET -> null;
    };
  }

  /** Returns the JSON object as an unmodifiable map. */
  static Map<String, Object> fromStruct(Struct struct) {
    Map<String, Object> members = new LinkedHashMap<>();
    struct.getFieldsMap().forEach((name, member) -> members.put(name, fromValue(member)));
    return Collections.unmodifiableMap(members);
  }

  private static List<Object> fromList(ListValue list) {
    List<Object> items = new ArrayList<>();
    list.getValuesList().forEach(item -> items.add(fromValue(item)));
    return Collections.unmodifiableList(items);
  }
}
