package dev.milepost.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Objects;

/**
 * A result or a checkpoint: a JSON value, or a protobuf message. Null is a JSON value, and differs
 * from the absence of a result.
 *
 * <p>Numbers of JSON are doubles, and members of an object keep no order.
 */
public final class Payload {
  /** The JSON value null. A handler that returns it completes its operation with this result. */
  public static final Payload NULL = new Payload(null, null, true);

  private final Any packed;
  private final Object value;
  private final boolean isJson;

  private Payload(Any packed, Object value, boolean isJson) {
    this.packed = packed;
    this.value = value;
    this.isJson = isJson;
  }

  /** Returns the content of the message; what cannot be decoded is not JSON. */
  static Payload of(Any packed) {
    if (Json.isJson(packed)) {
      try {
        return new Payload(packed, Json.fromAny(packed), true);
      } catch (InvalidProtocolBufferException undecodable) {
        return new Payload(packed, null, false);
      }
    }
    return new Payload(packed, null, false);
  }

  /**
   * Returns true if this is JSON, and false if it is another message.
   *
   * @return true for JSON
   */
  public boolean isJson() {
    return isJson;
  }

  /**
   * Returns true if this is the JSON value null.
   *
   * @return true for null
   */
  public boolean isNull() {
    return isJson && value == null;
  }

  /**
   * Returns the JSON value.
   *
   * @return a Map, a List, a String, a Double, a Boolean or null; all unmodifiable
   * @throws IllegalStateException if this is another message
   */
  public Object value() {
    if (!isJson) {
      throw new IllegalStateException("a " + packed.getTypeUrl() + " is not JSON: unpack it");
    }
    return value;
  }

  /**
   * Returns a member of this JSON object.
   *
   * @param name the name of the member
   * @return the member
   * @throws NoSuchElementException if the object has no such member
   */
  public Payload get(String name) {
    Map<String, Object> members = asMap();
    if (!members.containsKey(name)) {
      throw new NoSuchElementException("no member " + name);
    }
    return new Payload(null, members.get(name), true);
  }

  /**
   * Returns this JSON object.
   *
   * @return the members by their names
   * @throws ClassCastException if it is another JSON value
   */
  @SuppressWarnings("unchecked") // Json makes maps of this type alone
  public Map<String, Object> asMap() {
    return (Map<String, Object>) Map.class.cast(value());
  }

  /**
   * Returns this JSON list.
   *
   * @return the items
   * @throws ClassCastException if it is another JSON value
   */
  @SuppressWarnings("unchecked") // Json makes lists of this type alone
  public List<Object> asList() {
    return (List<Object>) List.class.cast(value());
  }

  /**
   * Returns this text.
   *
   * @return the text
   * @throws ClassCastException if it is another JSON value
   */
  public String asText() {
    return (String) value();
  }

  /**
   * Returns this number.
   *
   * @return the number
   * @throws ClassCastException if it is another JSON value
   */
  public double asDouble() {
    return (Double) value();
  }

  /**
   * Returns this number as an integer.
   *
   * @return the integer
   * @throws ClassCastException if it is another JSON value
   * @throws ArithmeticException if the number is not an integer
   */
  public long asLong() {
    double number = asDouble();
    if (number != Math.rint(number) || Math.abs(number) >= 0x1p63) {
      throw new ArithmeticException(number + " is not an integer of 64 bits");
    }
    return (long) number;
  }

  /**
   * Returns this Boolean value.
   *
   * @return true or false
   * @throws ClassCastException if it is another JSON value
   */
  public boolean asBoolean() {
    return (Boolean) value();
  }

  /**
   * Returns the message that was packed.
   *
   * @param <M> the type of the message
   * @param type the class of the message
   * @return the message
   * @throws IllegalArgumentException if it is another message
   */
  public <M extends Message> M unpack(Class<M> type) {
    try {
      return packed().unpack(type);
    } catch (InvalidProtocolBufferException problem) {
      throw new IllegalArgumentException("not a readable " + type.getSimpleName(), problem);
    }
  }

  /**
   * Returns the packed message.
   *
   * @return the message, with its type
   */
  public Any packed() {
    return packed != null ? packed : Any.pack(Json.toValue(value, 0));
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Payload that
        && isJson == that.isJson
        && (isJson ? Objects.equals(value, that.value) : packed.equals(that.packed));
  }

  @Override
  public int hashCode() {
    return isJson ? Objects.hashCode(value) : packed.hashCode();
  }

  @Override
  public String toString() {
    return isJson ? String.valueOf(value) : packed.getTypeUrl();
  }
}
