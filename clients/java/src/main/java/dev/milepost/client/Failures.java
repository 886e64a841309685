package dev.milepost.client;

import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;

/** Descriptions of whatever a handler throws, as errors that can be stored. */
final class Failures {
  private static final int MAX_CODE_LENGTH = 255;
  private static final int MAX_MESSAGE_LENGTH = 10_000;

  private Failures() {}

  /** Returns the class of the problem as code, and its text as message. */
  static OperationError describe(Throwable problem) {
    String code = storable(attempt(() -> codeOf(problem)), MAX_CODE_LENGTH);
    String kind = code.isEmpty() ? "Error" : code;
    String message = textOf(problem, kind);
    if (problem instanceof PermanentFailure failure) {
      return new OperationError(kind, message, failure.source(), failure.details());
    }
    return new OperationError(kind, message, Optional.empty(), Map.of());
  }

  /** Returns the text of the problem, whatever its methods do. */
  static String textOf(Throwable problem) {
    return textOf(problem, nameOf(problem));
  }

  private static String textOf(Throwable problem, String kind) {
    String text = storable(attempt(problem::getMessage), MAX_MESSAGE_LENGTH);
    return text.isEmpty() ? kind + " without a readable text" : text;
  }

  private static String codeOf(Throwable problem) {
    if (problem instanceof PermanentFailure failure) {
      return failure.code();
    }
    return nameOf(problem);
  }

  /** Returns the name of the class, or of the nearest one above that has a name. */
  static String nameOf(Throwable problem) {
    Class<?> kind = problem.getClass();
    while (kind.isAnonymousClass()) {
      kind = kind.getSuperclass();
    }
    return kind.getSimpleName();
  }

  /** Returns what the function returns, which is code of the user and may fail too. */
  private static String attempt(Callable<String> read) {
    try {
      String found = read.call();
      return found == null ? "" : found.strip();
    } catch (Throwable problem) { // even an overflow of the stack
      return "";
    }
  }

  /** Returns the text without what neither UTF-8 nor the store can hold. */
  private static String storable(String text, int maxLength) {
    StringBuilder storable = new StringBuilder();
    int[] points = text.codePoints().limit(maxLength).toArray();
    for (int point : points) {
      if (point == 0) {
        storable.append("\\x00");
      } else if (point >= Character.MIN_SURROGATE && point <= Character.MAX_SURROGATE) {
        storable.append(String.format("\\u%x", point));
      } else {
        storable.appendCodePoint(point);
      }
    }
    int length = Math.min(storable.codePointCount(0, storable.length()), maxLength);
    return storable.substring(0, storable.offsetByCodePoints(0, length));
  }
}
