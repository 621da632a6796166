import { createLiveness, type Liveness } from '../async/liveness.ts';
import type { Transport, TransportResponse } from '../http/transport.ts';
import { mapBody } from '../io/body.ts';
import type { Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { formatRange, parseContentRange, type ByteRange } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import { describeConnectionError } from '../http/transport.ts';
import { discard, startCall, withIdleTimeout, type Call } from '../upstream/call.ts';
import type { Place } from './agreement.ts';

/** The source of one blob. */
export interface Redirection {
  url: URL;
  place: Place;
}

/** The sources of blobs other than the registry: other nodes, and S3. */
export interface Places {
  /** Reads a blob from a source. Its bytes are not verified here.
   *  @throws OciError UNAVAILABLE: the source does not answer in time, refuses, or has other
   *  content */
  open(this: void, redirection: Redirection, wanted: { digest: Digest; range: ByteRange | undefined }, signal: AbortSignal): Promise<Blob>;
  /** Addresses of nodes that recently could not be reached. */
  away(this: void): string[];
  /** Whether S3 was reachable the last time. */
  reachesS3(this: void): boolean;
}

/** The time limit for the start of a source's response, in ms. */
const ANSWER_TIMEOUT_MS = 1000;
/** How long a live node may send no bytes, in ms: it may itself be waiting for a slow upstream. */
const NODE_IDLE_MS = 10_000;
const S3_IDLE_MS = 2000;
/** How long a node that could not be reached is not used, in ms. */
const NODE_AWAY_MS = 60_000;
const S3_AWAY_MS = 300_000;
const MAX_AWAY = 1000;
/** How many nodes' liveness is remembered. */
const MAX_WATCHED = 100;

export function createPlaces({ transport, pingTransport }: { transport: Transport; pingTransport: Transport }): Places {
  const absences: Absences = new Map();
  const livenessByOrigin = new Map<string, Liveness>();

  function livenessOf(origin: string): Liveness {
    const known = livenessByOrigin.get(origin);
    if (known !== undefined) return known;
    const liveness = createLiveness({
      changed: (alive) => void (alive || lose(absences, new URL(origin).host, NODE_AWAY_MS)),
      async ping(signal) {
        const { abandon } = await pingTransport.request({ origin, path: '/alive', method: 'GET', headers: {}, signal });
        abandon('short');
      },
    });
    livenessByOrigin.set(origin, liveness);
    for (const oldest of livenessByOrigin.keys()) if (livenessByOrigin.size > MAX_WATCHED) livenessByOrigin.delete(oldest);
    return liveness;
  }

  return {
    away: () => [...absences.keys()].filter((name) => name !== 's3' && isAway(absences, name)),
    reachesS3: () => !isAway(absences, 's3'),

    async open({ url, place }, { digest, range }, signal) {
      const isNode = place.kind === 'node';
      const call = startCall({ signal, deadline: AbortSignal.timeout(ANSWER_TIMEOUT_MS) }, url.host);
      let response: TransportResponse;
      try {
        response = await ask(transport, { url, range }, call);
      } catch (error) {
        call.end();
        if (!signal.aborted) lose(absences, isNode ? url.host : 's3', isNode ? NODE_AWAY_MS : S3_AWAY_MS);
        throw error;
      } finally {
        call.headersCame();
      }
      const part = partOf(response, range, place.size);
      if (part === undefined) {
        call.end();
        discard(response);
        if (!isNode && response.statusCode !== 404) lose(absences, 's3', S3_AWAY_MS);
        throw new OciError('UNAVAILABLE', `${url.host} answered ${response.statusCode} for ${digest}`, { origin: 'upstream' });
      }
      const idleTimeoutMs = isNode ? NODE_IDLE_MS : S3_IDLE_MS;
      const body = withIdleTimeout(response, call, { idleTimeoutMs, host: url.host });
      const blob = { digest, size: place.size, range: part === 'whole' ? undefined : part, body };
      return isNode ? whileAlive(blob, livenessOf(url.origin), { host: url.host, call }) : blob;
    },
  };
}

/** By the address of a node, or `s3`: until when it is not used, in ms on the monotonic clock. */
type Absences = Map<string, number>;

function lose(absences: Absences, name: string, milliseconds: number): void {
  absences.delete(name);
  absences.set(name, performance.now() + milliseconds);
  for (const oldest of absences.keys()) if (absences.size > MAX_AWAY) absences.delete(oldest);
}

function isAway(absences: Absences, name: string): boolean {
  const until = absences.get(name);
  if (until === undefined) return false;
  if (performance.now() < until) return true;
  absences.delete(name);
  return false;
}

async function ask(
  transport: Transport,
  { url, range }: { url: URL; range: ByteRange | undefined },
  call: Call,
): Promise<TransportResponse> {
  const headers = { 'accept-encoding': 'identity', ...(range === undefined ? {} : { range: formatRange(range) }) };
  try {
    return await transport.request({ origin: url.origin, path: url.pathname + url.search, method: 'GET', headers, signal: call.signal });
  } catch (error) {
    call.signal.throwIfAborted();
    throw describeConnectionError(error, transport, url);
  }
}

/** The range of a blob of `size` bytes that the response contains. Undefined: it is not the
 *  blob. */
function partOf(
  { statusCode, headers }: TransportResponse,
  range: ByteRange | undefined,
  size: number,
): 'whole' | Required<ByteRange> | undefined {
  const length = Number(headers['content-length'] ?? Number.NaN);
  if (statusCode === 200) return length === size ? 'whole' : undefined;
  const part = statusCode === 206 ? parseContentRange(String(headers['content-range'] ?? '')) : undefined;
  if (part === undefined || range === undefined || part.start !== range.start || part.size !== size) return undefined;
  return length === part.end - part.start + 1 ? { start: part.start, end: part.end } : undefined;
}

/** Ends the call when the node is found dead. */
function whileAlive(blob: Blob, liveness: Liveness, { host, call }: { host: string; call: Call }): Blob {
  const unwatch = liveness.watch(() =>
    call.abort(new OciError('UNAVAILABLE', `the node ${host} no longer answers`, { origin: 'upstream' })),
  );
  return { ...blob, body: mapBody(blob.body, { onBytes: () => liveness.heard(), onClose: unwatch }) };
}
