/** Values that stay in the testee, each under a name. */
export class Handles<Value> {
  readonly #prefix: string;
  readonly #values = new Map<string, Value>();

  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** Keep the value, and return its name. */
  add(value: Value): string {
    const handle = `${this.#prefix}-${this.#values.size + 1}`;
    this.#values.set(handle, value);
    return handle;
  }

  /** Return the value of the name. */
  get(handle: unknown): Value {
    const value = this.#values.get(String(handle));
    if (value === undefined) {
      throw new Error(`there is no ${this.#prefix} ${handle}`);
    }
    return value;
  }
}
