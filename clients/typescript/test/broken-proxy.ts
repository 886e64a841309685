/** A proxy on the way to the service that loses answers and connections. */
import { connect, createServer, type Server, type Socket } from "node:net";

/** A proxy that passes bytes on, and loses them on demand. */
export class BrokenProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** True while the bytes of the service are lost. */
  isDeaf = false;
  /** The number of connections so far. */
  connections = 0;

  private constructor(target: string) {
    const [host = "", port = ""] = target.split(":");
    this.#server = createServer((client) => {
      this.connections += 1;
      const upstream = connect(Number(port), host);
      for (const socket of [client, upstream]) {
        this.#sockets.add(socket);
        socket.on("error", () => undefined);
        socket.on("close", () => {
          this.#sockets.delete(socket);
          client.destroy();
          upstream.destroy();
        });
      }
      client.pipe(upstream);
      upstream.on("data", (bytes) => {
        if (!this.isDeaf) {
          client.write(bytes);
        }
      });
    });
  }

  /** Start a proxy to the address. */
  static async to(target: string): Promise<BrokenProxy> {
    const proxy = new BrokenProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get address(): string {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? `127.0.0.1:${address.port}` : "";
  }

  /** Cut all connections. */
  cut(): void {
    for (const socket of this.#sockets) {
      socket.destroy();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
