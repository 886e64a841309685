// Watches the URL in the first argument with the EventSource of browsers. Prints one line of JSON for each event and
// for each loss of the connection, and ends when the server lets it not come back.
const { EventSource } = require("eventsource");

const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const source = new EventSource(process.argv[2]);
source.addEventListener("operation", (event) => {
  print({ id: event.lastEventId, status: JSON.parse(event.data).status });
});
source.addEventListener("error", (event) => {
  const closed = source.readyState === EventSource.CLOSED;
  print({ closed, code: event.code ?? null, data: event.data ?? null });
});
