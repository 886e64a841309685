/** The pages of a list: calls that follow each other, as fast as the rate limit allows. */
import type { CallOptions as TransportOptions } from "@connectrpc/connect";
import { Backoff, clock, sleep } from "./backoff.js";
import type { CallOptions, Calls } from "./calls.js";
import { RateLimited } from "./errors.js";

/** How long a page after the first one is asked for while the rate limit refuses it. */
const MAX_LIMITED_MS = 300_000;

/**
 * Yield all pages of the list. The `pageToken` of the request is set to that of each page.
 *
 * A rate limit refuses the first page, because its rate is up to the user. The client asks
 * for the other pages by itself, so a limit only delays them.
 */
export async function* pages<
  Request extends { pageToken: string },
  Page extends { nextPageToken: string },
>(
  calls: Calls,
  method: (request: Request, options: TransportOptions) => Promise<Page>,
  request: Request,
  options: CallOptions,
): AsyncGenerator<Page, void, undefined> {
  const send = () => calls.send(method, request, options);
  let page = await send();
  yield page;
  while (page.nextPageToken !== "") {
    request.pageToken = page.nextPageToken;
    page = await nextPage(send, options.signal);
    yield page;
  }
}

/** Return the page once the rate limit allows it. */
async function nextPage<Page>(send: () => Promise<Page>, signal?: AbortSignal): Promise<Page> {
  const end = clock() + MAX_LIMITED_MS;
  const backoff = new Backoff();
  for (;;) {
    let pauseMs: number;
    try {
      return await send();
    } catch (error) {
      if (!(error instanceof RateLimited)) {
        throw error;
      }
      pauseMs = backoff.pauseMs(error);
      if (clock() + pauseMs >= end) {
        throw error;
      }
    }
    await sleep(pauseMs, signal);
  }
}
