import { readAll as readBytes } from '../../io/body.ts';
import type { Dispatcher } from 'undici';
import { followRedirects, MAX_REDIRECTS, RedirectError } from '../../http/redirects.ts';
import { ClashError } from './document.ts';
import { decompress } from './text.ts';

/** How to reach hosts. */
export interface Way {
  open(this: void): Promise<Dispatcher>;
  /** For URLs that others chose: it does not connect to internal addresses. */
  openOutside(this: void): Promise<Dispatcher>;
}

export interface DownloadOptions {
  way: Way;
  headers: Record<string, string>;
  /** Bytes. */
  limit: number;
  /** A subscription chose the URL: even the first request may not go to an internal address. */
  foreign?: boolean;
  /** Milliseconds, for the whole download. */
  timeLimit?: number;
}

export interface Download {
  bytes: Uint8Array;
  headers: Record<string, string | string[] | undefined>;
}

const TIME_LIMIT_MS = 60_000;
const HEADERS_LIMIT_MS = 20_000;
const IDLE_LIMIT_MS = 15_000;

/** Fetches a small document. Errors contain no part of the URL, which is a secret.
 *  @throws ClashError: it cannot be fetched, or is too large */
export async function download(url: string, options: DownloadOptions, signal: AbortSignal): Promise<Download> {
  const { timeLimit = TIME_LIMIT_MS } = options;
  const limited = AbortSignal.any([signal, AbortSignal.timeout(timeLimit)]);
  try {
    const response = await follow(new URL(url), options, limited);
    return { bytes: await readAll(response, options.limit), headers: response.headers };
  } catch (error) {
    if (error instanceof ClashError) throw error;
    if (error instanceof RedirectError) throw new ClashError(describeRedirect(error));
    signal.throwIfAborted();
    if (limited.aborted) throw new ClashError(`it did not arrive within ${timeLimit / 1000} s`);
    const { code = (error as Error).name } = error as NodeJS.ErrnoException;
    throw new ClashError(`it cannot be reached (${code})`); // the cause contains the host and the path
  }
}

async function follow(
  first: URL,
  { way, headers, foreign = false }: DownloadOptions,
  signal: AbortSignal,
): Promise<Dispatcher.ResponseData> {
  const { response } = await followRedirects<Dispatcher.ResponseData>(first, {
    mayBeInternal: (url) => !foreign && url.host === first.host,
    send: async (url, route) =>
      (await (route === 'own' ? way.open() : way.openOutside())).request({
        origin: url.origin,
        path: url.pathname + url.search,
        method: 'GET',
        headers: {
          accept: '*/*',
          'accept-encoding': 'identity',
          ...(url.origin === first.origin ? headers : pickAgent(headers)),
          ...basic(url),
        },
        headersTimeout: HEADERS_LIMIT_MS,
        bodyTimeout: IDLE_LIMIT_MS,
        signal,
      }),
    discard,
  });
  if (response.statusCode === 200) return response;
  discard(response);
  throw new ClashError(`the server answered with ${response.statusCode}`);
}

function discard({ body }: Dispatcher.ResponseData): void {
  body.on('error', () => undefined).destroy();
}

/** Without names of hosts, which are secrets here. */
function describeRedirect({ problem, target }: RedirectError): string {
  const scheme = target?.protocol.slice(0, -1) ?? 'another scheme';
  return {
    'too-many': `it redirects more than ${MAX_REDIRECTS} times`,
    'no-url': 'it redirects to something that is not a URL',
    scheme: `it redirects to ${scheme}, which is not followed from there`,
    internal: 'it leads to an internal address, which is not allowed',
  }[problem];
}

/** Other headers may contain a key, so that only the User-Agent goes to another origin. */
function pickAgent(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => name.toLowerCase() === 'user-agent'));
}

function basic({ username, password }: URL): Record<string, string> {
  if (username === '' && password === '') return {};
  return { authorization: `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')}` };
}

async function readAll({ body, headers }: Dispatcher.ResponseData, limit: number): Promise<Uint8Array> {
  const tooLarge = () => new ClashError(`it has more than ${limit / 2 ** 20} MiB, the limit`);
  const encoding = String(headers['content-encoding'] ?? '');
  try {
    if (Number(headers['content-length'] ?? 0) > limit) throw tooLarge();
    const bytes = await readBytes(body, limit);
    if (bytes === undefined) throw tooLarge();
    return decompress(bytes, encoding, limit);
  } finally {
    body.on('error', () => undefined).destroy();
  }
}
