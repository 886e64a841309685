/** An event that wakes whoever waits for it. */
export class Bell {
  readonly #waiting = new Set<() => void>();
  #isRung = false;

  /** Wake all that wait, and the next one that would wait before `clear`. */
  ring(): void {
    this.#isRung = true;
    for (const wake of this.#waiting) {
      wake();
    }
  }

  /** Forget that the bell was rung. */
  clear(): void {
    this.#isRung = false;
  }

  /** Wait until the bell is rung, or the time has passed. */
  async wait(ms = Number.POSITIVE_INFINITY): Promise<void> {
    if (this.#isRung || ms <= 0) {
      return;
    }
    await new Promise<void>((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        resolve();
      };
      // A timer of Node cannot wait for longer than 24 days.
      const timer = ms < 2 ** 31 ? setTimeout(wake, ms) : undefined;
      this.#waiting.add(wake);
    });
  }
}
