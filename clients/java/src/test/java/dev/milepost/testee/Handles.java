package dev.milepost.testee;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/** What commands refer to by handles. */
final class Handles {
  private final AtomicInteger count = new AtomicInteger();
  private final Map<String, Object> values = new ConcurrentHashMap<>();

  String put(Object value) {
    String handle = Integer.toString(count.incrementAndGet());
    values.put(handle, value);
    return handle;
  }

  <T> T take(Class<T> type, String handle) {
    Object value = handle == null ? null : values.get(handle);
    if (value == null) {
      throw new IllegalArgumentException("no such handle: " + handle);
    }
    return type.cast(value);
  }
}
