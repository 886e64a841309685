/** The address of a service: its host and port, and whether it stays on this machine. */
import { isIP, isIPv4, isIPv6 } from "node:net";

/** One place to connect to: a host with a port, or the path of a Unix socket. */
export type Address =
  | { readonly kind: "host"; readonly host: string; readonly port: number | undefined }
  | { readonly kind: "unix"; readonly path: string };

const FORM =
  /^(?:dns:(?:\/\/\/)?|ipv4:|ipv6:)?(?:\[(?<bracketed>[^\]]+)\]|(?<plain>[^:[\]/\s]+))(?::(?<port>\d{1,5}))?$/;
const MAX_PORT = 65_535;

/**
 * Return the parts of an address: `host:port`, `[ipv6]:port`, `dns:///host:port`, `unix:path`.
 *
 * @throws TypeError if the address has another form.
 */
export function parseAddress(text: string): Address {
  if (text.startsWith("unix:")) {
    return { kind: "unix", path: text.slice("unix:".length).replace(/^\/\/(?=\/)/, "") };
  }
  const groups = FORM.exec(text)?.groups;
  const host = groups?.bracketed ?? groups?.plain;
  const port = groups?.port === undefined ? undefined : Number(groups.port);
  if (host === undefined || (port !== undefined && port > MAX_PORT)) {
    throw new TypeError(`${JSON.stringify(text)} is not an address such as 127.0.0.1:7450`);
  }
  return { kind: "host", host, port };
}

/** Return true if every connection to the address stays on this machine. */
export function isLoopback(address: Address): boolean {
  if (address.kind === "unix") {
    return true;
  }
  const host = address.host.toLowerCase();
  return host === "localhost" || (isIPv4(host) && host.startsWith("127.")) || isLoopback6(host);
}

function isLoopback6(host: string): boolean {
  return isIPv6(host) && new URL(`http://[${host}]`).hostname === "[::1]";
}

/** Return true if the host is a name, which may have several addresses. */
export function isName(address: Address): boolean {
  return address.kind === "host" && isIP(address.host) === 0;
}

/** Return the URL of the address, from which HTTP takes the authority. */
export function baseUrl(address: Address, isEncrypted: boolean): string {
  const scheme = isEncrypted ? "https" : "http";
  if (address.kind === "unix") {
    return `${scheme}://localhost`;
  }
  const host = isIPv6(address.host) ? `[${address.host}]` : address.host;
  return `${scheme}://${host}${address.port === undefined ? "" : `:${address.port}`}`;
}
