import type { Digest } from '../oci/digest.ts';
import type { Reference, Repository } from '../oci/reference.ts';
import { isDigest } from '../oci/digest.ts';
import type { Log } from '../telemetry/log.ts';

/** How a pull ended. hit: all of it came from the cache. miss: something was fetched from upstream.
 *  stale: the tag is the one of the cache, since upstream could not confirm it. denied:
 *  registry.policy or the upstream refused. gone: the client disconnected and did not continue.
 *  error: anything else. */
export type PullOutcome = 'hit' | 'miss' | 'stale' | 'gone' | 'denied' | 'error';

/** A request for a manifest or a blob. */
export interface PullRequest {
  /** The client's address. */
  client: string;
  /** The node's name, as reported by its agent. */
  node: string | undefined;
  /** The upstream's name. */
  upstream: string;
  /** With the upstream's name in front. */
  repository: Repository;
  /** The reference of a requested manifest. */
  reference: Reference | undefined;
}

/** The answer to such a request. */
export interface PullAnswer {
  /** The digest of the manifest. */
  digest: Digest | undefined;
  /** Length of the response body. */
  bytes: number;
  status: number;
  outcome: PullOutcome;
}

export interface AccessLog {
  /** Call it when a request begins. @returns a function to call with its answer */
  begin(this: void, request: PullRequest): (answer: PullAnswer) => void;
  /** Writes the lines of pulls that have not ended yet. */
  close(this: void): void;
}

export interface AccessLogOptions {
  log: Log;
  /** A pull has ended when its client has sent no request for the repository for this long, in
   *  ms. */
  idleMs?: number;
  /** Pulls whose lines are not written yet; with more, the oldest are written early. */
  maxOpen?: number;
}

/** Clients request the next blob at once, or after they have unpacked one. */
const IDLE_MS = 3000;
const MAX_OPEN = 10_000;
/** The worst outcome counts for the pull. Clients sometimes cut a request to continue at another
 *  position of the blob. */
const SEVERITY: Record<PullOutcome, number> = { gone: 0, hit: 0, miss: 1, stale: 2, denied: 3, error: 4 };

interface Pull extends PullRequest, Pick<PullAnswer, 'bytes' | 'outcome' | 'status'> {
  key: string;
  /** ISO 8601. */
  started: string;
  startedAt: number;
  endedAt: number;
  tag: string | undefined;
  digest: Digest | undefined;
  /** The client cut the last answer. */
  isBrokenOff: boolean;
  requests: number;
  running: number;
  timer: NodeJS.Timeout | undefined;
}

/** One line for each pull of an image, at its end. A client's requests for one repository belong to
 *  one pull as long as less than `idleMs` pass between them; a request for another tag begins
 *  another pull. */
export function createAccessLog({ log, idleMs = IDLE_MS, maxOpen = MAX_OPEN }: AccessLogOptions): AccessLog {
  const open = new Map<string, Pull>();

  function start(key: string, request: PullRequest): Pull {
    for (const oldest of open.values()) {
      if (open.size < maxOpen) break;
      write(oldest);
    }
    const pull: Pull = {
      ...request,
      key,
      started: new Date().toISOString(),
      startedAt: performance.now(),
      endedAt: performance.now(),
      tag: undefined,
      digest: undefined,
      bytes: 0,
      outcome: 'hit',
      status: 200,
      isBrokenOff: false,
      requests: 0,
      running: 0,
      timer: undefined,
    };
    open.set(key, pull);
    return pull;
  }

  function pullOf(request: PullRequest): Pull {
    const { client, node = '', repository, reference } = request;
    const key = `${client} ${node} ${repository}`;
    const found = open.get(key);
    const tag = reference === undefined || isDigest(reference) ? undefined : reference;
    const isOther = found?.tag !== undefined && tag !== undefined && tag !== found.tag;
    if (found !== undefined && isOther) write(found);
    const pull = found === undefined || isOther ? start(key, request) : found;
    pull.tag ??= tag;
    return pull;
  }

  function write(pull: Pull): void {
    clearTimeout(pull.timer);
    if (open.get(pull.key) === pull) open.delete(pull.key);
    const { started, client, node, upstream, repository, tag, digest, bytes, status, requests } = pull;
    const outcome = pull.isBrokenOff && SEVERITY[pull.outcome] < SEVERITY.denied ? 'gone' : pull.outcome;
    const image = { upstream, repository: repository.slice(repository.indexOf('/') + 1), tag, digest };
    const ms = Math.round(pull.endedAt - pull.startedAt);
    log.info({ event: 'image-pulled', started, client, node, ...image, bytes, outcome, status, requests, ms }, 'image pulled');
  }

  return {
    begin(request) {
      const pull = pullOf(request);
      clearTimeout(pull.timer);
      pull.running++;
      pull.requests++;
      return ({ digest, bytes, status, outcome }) => {
        pull.running--;
        pull.endedAt = performance.now();
        pull.bytes += bytes;
        pull.isBrokenOff = outcome === 'gone';
        // The first manifest is the one that the tag or the pod names; the others belong to it.
        if (request.reference !== undefined) pull.digest ??= digest ?? (isDigest(request.reference) ? request.reference : undefined);
        if (SEVERITY[outcome] > SEVERITY[pull.outcome]) Object.assign(pull, { outcome, status });
        if (pull.running === 0 && open.get(pull.key) === pull) pull.timer = setTimeout(() => write(pull), idleMs).unref();
      };
    },
    close() {
      for (const pull of open.values()) write(pull);
    },
  };
}
