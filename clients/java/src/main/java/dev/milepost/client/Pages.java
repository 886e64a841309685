package dev.milepost.client;

import java.time.Duration;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.function.Function;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * The items of all pages of a list. Each page is read when it is needed, and every iteration begins
 * with the first.
 *
 * <p>A rate limit refuses the first page, because the user decides how many lists there are. The
 * client asks for the other pages, so a limit delays each of them, for up to 5 minutes.
 *
 * @param <T> the type of the items
 */
public final class Pages<T> implements Iterable<T> {
  /** How long a page after the first one is asked for while the rate limit refuses it. */
  private static final Duration MAX_LIMITED = Duration.ofMinutes(5);

  private final Function<String, Page<T>> fetch;

  /** Takes the call that returns the page of a token; an empty one stands for the first page. */
  Pages(Function<String, Page<T>> fetch) {
    this.fetch = fetch;
  }

  /** One page, and the token of the next one; empty after the last page. */
  record Page<T>(List<T> items, String nextToken) {}

  @Override
  public Iterator<T> iterator() {
    return new PageIterator<>(fetch);
  }

  /** {@return the items as a stream} */
  public Stream<T> stream() {
    return StreamSupport.stream(spliterator(), false);
  }

  /** An iteration over all pages. */
  private static final class PageIterator<T> implements Iterator<T> {
    private final Function<String, Page<T>> fetch;
    private Iterator<T> items = List.<T>of().iterator();
    private String token = "";
    private boolean isLast;

    PageIterator(Function<String, Page<T>> fetch) {
      this.fetch = fetch;
    }

    @Override
    public boolean hasNext() {
      while (!items.hasNext() && !isLast) {
        Page<T> page = token.isEmpty() ? fetch.apply(token) : nextPage();
        items = page.items().iterator();
        token = page.nextToken();
        isLast = token.isEmpty();
      }
      return items.hasNext();
    }

    /** Returns the page of the token once the rate limit allows it. */
    private Page<T> nextPage() {
      long end = System.nanoTime() + MAX_LIMITED.toNanos();
      Backoff backoff = new Backoff(Backoff.MAX_PAUSE);
      while (true) {
        try {
          return fetch.apply(token);
        } catch (RateLimitedException limit) {
          long pause = backoff.pause(limit);
          if (System.nanoTime() + pause - end >= 0) {
            throw limit;
          }
          Calls.sleep(pause);
        }
      }
    }

    @Override
    public T next() {
      if (!hasNext()) {
        throw new NoSuchElementException();
      }
      return items.next();
    }
  }
}
