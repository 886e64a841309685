/** Where a worker writes what its operator should know. */
export interface Logger {
  info(message: string): void;
  warn(message: string): void;
  error(message: string, problem?: unknown): void;
}

/** Writes warnings and errors to the standard error output, and leaves out the rest. */
export const CONSOLE: Logger = {
  info: () => undefined,
  // biome-ignore lint/suspicious/noConsole: the default destination of warnings
  warn: (message) => console.warn(`milepost: ${message}`),
  // biome-ignore lint/suspicious/noConsole: the default destination of errors
  error: (message, problem) => console.error(`milepost: ${message}`, problem ?? ""),
};
