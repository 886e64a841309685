// The client of google-gax.
const path = require("node:path");
const gax = require("google-gax");

const PROTOS = path.join(__dirname, "..", "..", "..", "protos");

// The key and the preference go into every call of the channel: a future's `cancel` takes no headers.
function operationsClient(address, key, holdS) {
  const [servicePath, port] = address.split(":");
  return gax.lro().operationsClient({
    servicePath,
    port: Number(port),
    sslCreds: gax.grpc.credentials.createInsecure(),
    "grpc.callInvocationTransformer": (call) => {
      call.metadata.set("authorization", `Bearer ${key}`);
      call.metadata.set("prefer", `wait=${holdS}`);
      return call;
    },
  });
}

function futureOf(client, name, Metadata) {
  const Struct = gax.protobuf.common.get("google/protobuf/struct.proto").nested.google.nested.protobuf.nested;
  const root = gax.protobuf.Root.fromJSON({ nested: { google: { nested: { protobuf: { nested: Struct } } } } });
  const result = root.lookupType("google.protobuf.Struct");
  const descriptor = new gax.LongrunningDescriptor(
    client,
    (bytes) => result.decode(bytes),
    (bytes) => Metadata.decode(bytes),
  );
  const pauses = gax.createBackoffSettings(100, 1.3, 60_000, null, null, null, null);
  return gax.operation({ name }, descriptor, pauses, {});
}

async function operationMetadata() {
  const root = new gax.protobuf.Root();
  root.resolvePath = (_, target) => path.join(PROTOS, target);
  await root.load("milepost/v1/operation.proto");
  return root.lookupType("milepost.v1.OperationMetadata");
}

const show = (line) => console.log(JSON.stringify(line));

// The JSON of a decoded google.protobuf.Value, which protobufjs leaves as it is.
function plain(value) {
  if (value.kind === "structValue") return object(value.structValue);
  if (value.kind === "listValue") return value.listValue.values.map(plain);
  return value.kind === "nullValue" ? null : value[value.kind];
}

const object = (struct) =>
  Object.fromEntries(Object.entries(struct.fields).map(([name, value]) => [name, plain(value)]));

async function wait(client, name, cancel, Metadata) {
  const state = ({ status, progress }) => ({
    status: Metadata.lookupEnum("OperationStatus").valuesById[status],
    progress: progress ?? 0,
  });
  const future = futureOf(client, name, Metadata);
  let begun = false;
  future.on("progress", async (metadata) => {
    show(state(metadata));
    if (!cancel || begun) return;
    begun = true;
    await future.cancel();
    show({ cancel: true });
  });
  const [value, metadata] = await future.promise();
  show({ value: object(value), ...state(metadata) });
}

// Follows operations, one after the other.
async function waitForAll(client, names, cancel) {
  const Metadata = await operationMetadata();
  for (const name of names.split(",")) await wait(client, name, cancel, Metadata);
}

async function main(address, verb, name) {
  const client = operationsClient(address, process.env.MILEPOST_API_KEY, process.env.HOLD_S);
  const verbs = {
    wait: () => waitForAll(client, name, false),
    cancel: () => waitForAll(client, name, true),
    delete: async () => {
      await client.deleteOperation({ name });
      show({ deleted: true });
    },
    list: async () => {
      const names = [];
      for await (const found of client.listOperationsAsync({ name: "operations", filter: "done=true" })) {
        names.push(found.name);
      }
      show({ names });
    },
  };
  try {
    await verbs[verb]();
  } catch (error) {
    show({ error: error.constructor.name, code: error.code, message: error.message });
  }
  process.exit();
}

main(...process.argv.slice(2));
