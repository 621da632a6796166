import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from '../async/backoff.ts';
import { hedge } from '../async/hedge.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import type { Limits } from './call.ts';
import { UpstreamError, wasHungUp } from './errors.ts';
import { SHORT_WAIT_MS } from './rate-limit.ts';
import type { Source } from './request.ts';

export interface SourcesOptions {
  origin: Source;
  mirrors: readonly Source[];
  /** Repositories with these prefixes are only requested from mirrors that have credentials for
   *  them. */
  privatePrefixes: readonly string[];
  /** How often the origin is asked at most. */
  attempts: number;
  /** How long a mirror that has failed is asked only when no other source answers. */
  deadMirrorMs: number;
}

/** How to look for one object. */
export interface Search {
  repository: string;
  signal: AbortSignal;
  /** Until headers, over all sources and retries. */
  headersMs: number;
  /** `mirrors`: mirrors, then the origin. `origin`: the origin, then mirrors if it does not answer.
   *  `alone`: only the origin. */
  order: 'mirrors' | 'origin' | 'alone';
}

export interface Sources {
  /** Asks one source after another until one answers. Mirrors that have recently failed are asked
   *  only when no other source answers. Only the origin can say that an object does not exist.
   *  @throws what the origin throws; its signal's reason */
  ask<T>(this: void, search: Search, work: Work<T>): Promise<T>;
  /** Asks one source, and retries after temporary failures. */
  insist<T>(this: void, source: Source, search: Pick<Search, 'signal' | 'headersMs'>, work: Work<T>): Promise<T>;
}
export type Work<T> = (source: Source, limits: Limits) => Promise<T>;

interface Favour {
  /** Milliseconds since the epoch. */
  lostUntil: number;
  /** Failures since the last success; at MAX_STRIKES the mirror is asked last. */
  strikes: number;
}

/** Failures of single requests in a row after which a mirror is asked last: one broken image is not
 *  a broken mirror. */
const MAX_STRIKES = 3;

export function createSources(options: SourcesOptions): Sources {
  const { mirrors, attempts } = options;
  const ranked: Ranked = { ...options, favours: new Map(mirrors.map((mirror) => [mirror, { lostUntil: 0, strikes: 0 }])) };
  return {
    async ask(search, work) {
      const { signal, headersMs } = search;
      const candidates = candidatesFor(ranked, search);
      const deadline = AbortSignal.timeout(headersMs);
      const attempt = (source: Source, signal: AbortSignal) => {
        const limits = { signal, deadline };
        return source.isOrigin ? retry(attempts, source, { limits, work }) : askMirror(ranked, source, { limits, work });
      };
      const [only, ...others] = candidates;
      if (only !== undefined && others.length === 0) return attempt(only, signal);
      const result = await hedge(candidates, {
        signal,
        patienceMs: Math.floor(headersMs / (mirrors.length + 2)),
        isFinal: (source, error) => source.isOrigin && isAbsent(error),
        attempt,
      });
      if (!result.won) throw worst(result.failures);
      for (const slow of result.overtaken) if (!slow.isOrigin) lose(ranked, slow);
      return result.value;
    },
    insist: (source, { signal, headersMs }, work) =>
      retry(attempts, source, { limits: { signal, deadline: AbortSignal.timeout(headersMs) }, work }),
  };
}

interface Ranked extends SourcesOptions {
  favours: Map<Source, Favour>;
}

/** The sources in the order in which they are asked. Repositories with credentials are not
 *  revealed to mirrors that have none for them. */
function candidatesFor({ origin, mirrors, privatePrefixes, favours }: Ranked, { repository, order }: Search): Source[] {
  if (order === 'alone') return [origin];
  const isPrivate = privatePrefixes.some((prefix) => repository.startsWith(prefix));
  const allowed = mirrors.filter(({ endpoint }) => !isPrivate || endpoint.covers(repository));
  const now = Date.now();
  const isLiked = (mirror: Source): boolean => (favours.get(mirror)?.lostUntil ?? 0) <= now;
  const [liked, others] = [allowed.filter(isLiked), allowed.filter((mirror) => !isLiked(mirror))];
  return order === 'origin' ? [origin, ...liked, ...others] : [...liked, origin, ...others];
}

/** Asks a mirror once, or twice if it has closed the connection, and judges it by the outcome. */
async function askMirror<T>(ranked: Ranked, source: Source, { limits, work }: { limits: Limits; work: Work<T> }): Promise<T> {
  try {
    const value = await work(source, limits).catch((error: unknown) => {
      if (!wasHungUp(error)) throw error;
      return work(source, limits);
    });
    const favour = ranked.favours.get(source);
    if (favour !== undefined) favour.strikes = 0;
    return value;
  } catch (error) {
    if (!limits.signal.aborted) judge(ranked, source, error);
    throw error;
  }
}

/** Judges a mirror by the error of a request. */
function judge(ranked: Ranked, mirror: Source, error: unknown): void {
  const favour = ranked.favours.get(mirror);
  if (favour === undefined) return;
  if (isOciError(error, 'TOOMANYREQUESTS')) return lose(ranked, mirror, 1000 * (error.retryAfter ?? 0));
  // An error about one object says little about others; no answer at all says much.
  const single = error instanceof UpstreamError ? error.failure !== 'source' : isOciError(error, 'MANIFEST_INVALID');
  if (!single) return lose(ranked, mirror);
  const counts = isOciError(error, 'MANIFEST_INVALID') || (error instanceof UpstreamError && error.failure === 'moment');
  if (counts && ++favour.strikes >= MAX_STRIKES) lose(ranked, mirror);
}

/** Asks a mirror last for a while. */
function lose({ favours, deadMirrorMs }: Ranked, mirror: Source, milliseconds = deadMirrorMs): void {
  favours.set(mirror, { lostUntil: Date.now() + Math.max(milliseconds, deadMirrorMs), strikes: 0 });
}

/** Asks a source again after temporary failures. */
async function retry<T>(attempts: number, source: Source, { limits, work }: { limits: Limits; work: Work<T> }): Promise<T> {
  const { signal, deadline } = limits;
  for (let count = 1; ; count++) {
    try {
      return await work(source, limits);
    } catch (error) {
      signal.throwIfAborted();
      if (!mayPass(error) || count >= attempts || deadline.aborted) throw error;
      const pause = Math.max(1000 * (error.retryAfter ?? 0), backoff(count, { baseMs: 150, jitter: 'half' }));
      await delay(pause, undefined, { signal: AbortSignal.any([signal, deadline]) }).catch(() => undefined); // thrown below
      signal.throwIfAborted();
      if (deadline.aborted) throw error;
    }
  }
}

/** Whether the same source may answer if it is asked again at once. */
function mayPass(error: unknown): error is OciError {
  if (error instanceof UpstreamError && error.failure !== 'moment') return false;
  if (isOciError(error, 'TOOMANYREQUESTS')) return error.retryAfter !== undefined && 1000 * error.retryAfter <= SHORT_WAIT_MS;
  return isOciError(error, 'UNAVAILABLE') && (error.retryAfter ?? 0) <= 2;
}

/** The error to show: the origin's, unless a mirror has rejected the range and the origin has not
 *  answered. */
function worst(failures: readonly { candidate: Source; error: unknown }[]): unknown {
  const own = failures.find(({ candidate }) => candidate.isOrigin)?.error;
  const range = failures.find(({ error }) => isOciError(error, 'RANGE_INVALID') && error.size !== undefined)?.error;
  if (isOciError(own, 'UNAVAILABLE') && range !== undefined) return range;
  return own ?? failures.at(-1)?.error ?? new OciError('UNAVAILABLE', 'no source may be used for this repository', { origin: 'upstream' });
}
