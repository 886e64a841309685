package dev.milepost.testee;

import dev.milepost.client.ListOptions;
import dev.milepost.client.Milepost;
import dev.milepost.client.Operation;
import dev.milepost.client.Status;
import dev.milepost.client.Watch;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;

/** The calls whose answers come one by one. */
final class StreamCalls {
  private final Handles handles;

  StreamCalls(Handles handles) {
    this.handles = handles;
  }

  /** An iteration that goes on from command to command; it is for one thread at a time. */
  record ItemStream(Iterator<?> items, Runnable end) {
    synchronized Object next() throws ReflectiveOperationException {
      if (!items.hasNext()) {
        return Map.of("end", true);
      }
      Object item = items.next();
      return Map.of(
          "item",
          item instanceof Operation operation
              ? Output.ofOperation(operation)
              : Output.ofRecord((Record) item));
    }
  }

  Map<String, Main.Call> calls() {
    Map<String, Main.Call> calls = new LinkedHashMap<>();
    calls.put("list", this::list);
    calls.put("events", this::events);
    calls.put("watch", this::watch);
    calls.put("next", command -> take(command).next());
    calls.put("close", this::close);
    return calls;
  }

  private Milepost client(Command command) {
    return handles.take(ClientCalls.Connection.class, command.text("client")).client();
  }

  private ItemStream take(Command command) {
    return handles.take(ItemStream.class, command.text("stream"));
  }

  private Object open(Iterator<?> items, Runnable end) {
    return Map.of("stream", handles.put(new ItemStream(items, end)));
  }

  private Object list(Command command) {
    ListOptions options = new ListOptions();
    options.statuses(command.texts("statuses").stream().map(Status::valueOf).toList());
    command.withText("function", options::function);
    command.withTime("created_from", options::createdFrom);
    command.withTime("created_before", options::createdBefore);
    command.withText("owner", options::owner);
    if (command.isTrue("full")) {
      options.full();
    }
    command.withInt("page_size", options::pageSize);
    return open(client(command).list(options).iterator(), () -> {});
  }

  private Object events(Command command) {
    int pageSize = command.has("page_size") ? command.arguments().get("page_size").getAsInt() : 0;
    String id = command.text("operation_id");
    return open(client(command).events(id, pageSize).iterator(), () -> {});
  }

  private Object watch(Command command) {
    long after =
        command.has("after_revision") ? command.arguments().get("after_revision").getAsLong() : 0;
    Watch watch = client(command).watch(command.text("operation_id"), after);
    return open(watch.iterator(), watch::close);
  }

  private Object close(Command command) {
    take(command).end().run();
    return Map.of();
  }
}
