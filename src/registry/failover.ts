import { setTimeout as delay } from 'node:timers/promises';
import { isOciError, OciError } from '../oci/error.ts';
import type { Blob, Context, Registry } from '../oci/registry.ts';
import type { Log } from '../telemetry/log.ts';

export interface FailoverOptions {
  log: Log;
  /** Whether `first` answers at all; asked in the background once it has failed. */
  probe(signal: AbortSignal): Promise<boolean>;
  /** Ends the probing. */
  stop: AbortSignal;
  /** Counts what `second` was asked for. */
  fellBack(): void;
  /** Milliseconds without headers after which `second` is asked beside `first`: slow is not dead. */
  slowAfter?: number;
  /** Milliseconds after which a call fails; containerd waits for 30 s. */
  limit?: number;
}

const SLOW_AFTER = 3000;
const LIMIT = 25_000;
const PROBE_INTERVAL = 1000;
/** How often one body may change sides. */
const MAX_RESUMES = 4;

/** `first`, and `second` when it cannot answer: at once when it is away or fails, beside it when it is slow. What is absent from
 *  `first`, or refused by it, is an answer. A blob that is cut in the middle is continued from the other side.
 *  @throws OciError as the last one asked does; UNAVAILABLE when nobody answers within the limit */
export function failover(first: Registry, second: Registry, options: FailoverOptions): Registry {
  const { log, slowAfter = SLOW_AFTER, limit = LIMIT } = options;
  let away = false;

  function noteFailure(error: unknown): void {
    if (away || options.stop.aborted) return;
    away = true;
    log.warn({ error }, 'the registry does not answer; images come straight from upstream');
    void probeUntilBack();
  }

  async function probeUntilBack(): Promise<void> {
    while (!options.stop.aborted) {
      await delay(PROBE_INTERVAL, undefined, { signal: options.stop }).catch(() => undefined); // stopped
      if (await options.probe(AbortSignal.any([options.stop, AbortSignal.timeout(2000)])).catch(() => false)) break; // still away
    }
    away = false;
    if (!options.stop.aborted) log.info('the registry answers again');
  }

  /** The first success of both; `work` gets a signal of its own, so that the loser can be ended. */
  async function either<T>(context: Context, work: (registry: Registry, signal: AbortSignal) => Promise<T>): Promise<T> {
    const { signal } = context;
    signal.throwIfAborted();
    const controllers = [new AbortController(), new AbortController()] as const;
    const abort = () => controllers.forEach((controller) => controller.abort(signal.reason));
    signal.addEventListener('abort', abort, { once: true });
    const result = Promise.withResolvers<T>();
    const errors: unknown[] = [];
    const asked = new Set<number>();

    function ask(side: 0 | 1): void {
      if (asked.has(side) || signal.aborted) return;
      asked.add(side);
      if (side === 1) options.fellBack();
      work(side === 0 ? first : second, controllers[side].signal).then(
        (value) => {
          controllers[1 - side]?.abort(new OciError('UNAVAILABLE', 'the other side answered first'));
          result.resolve(value);
        },
        (error: unknown) => {
          errors.push(error);
          if (side === 0 && !controllers[0].signal.aborted && isOutage(error)) noteFailure(error);
          const final = side === 0 && !isOutage(error) && !isOciError(error, 'TOOMANYREQUESTS');
          if (final || errors.length === 2) result.reject(final ? error : errors[0]);
          else ask(side === 0 ? 1 : 0);
        },
      );
    }

    const slow = setTimeout(() => ask(1), slowAfter);
    const late = setTimeout(() => {
      controllers.forEach((controller) => controller.abort(new OciError('UNAVAILABLE', 'nobody answered in time')));
      result.reject(new OciError('UNAVAILABLE', `neither the registry nor upstream answered within ${limit / 1000} s; try again`));
    }, limit);
    ask(away ? 1 : 0);
    try {
      return await result.promise;
    } finally {
      clearTimeout(slow);
      clearTimeout(late);
    }
  }

  return {
    resolve: (repository, reference, context) =>
      either(context, (registry, signal) => registry.resolve(repository, reference, { ...context, signal })),
    manifest: (repository, reference, context) =>
      either(context, (registry, signal) => registry.manifest(repository, reference, { ...context, signal })),
    stat: (repository, digest, context) => either(context, (registry, signal) => registry.stat(repository, digest, { ...context, signal })),
    referrers: (repository, digest, context) =>
      either(context, (registry, signal) => registry.referrers(repository, digest, { ...context, signal })),

    async blob(repository, digest, context) {
      const open = (registry: Registry, signal: AbortSignal, range = context.range) =>
        registry.blob(repository, digest, { ...context, signal, ...(range === undefined ? {} : { range }) });
      const blob = await either(context, (registry, signal) => open(registry, signal));
      const again = (start: number, end: number | undefined) =>
        either(context, (registry, signal) => open(registry, signal, end === undefined ? { start } : { start, end }));
      return { ...blob, body: resumed(blob, again, context.signal) };
    },

    async *tags(repository, context) {
      let last = context.last;
      try {
        for await (const tag of (away ? second : first).tags(repository, context)) {
          last = tag;
          yield tag;
        }
      } catch (error) {
        if (!isOutage(error) || context.signal.aborted) throw error;
        noteFailure(error);
        yield* second.tags(repository, last === undefined ? context : { ...context, last });
      }
    },
  };

  /** The body, continued by a range from whoever answers when it is cut. */
  async function* resumed(
    blob: Blob,
    again: (start: number, end: number | undefined) => Promise<Blob>,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    const end = blob.range?.end ?? (blob.size === undefined ? undefined : blob.size - 1);
    let position = blob.range?.start ?? 0;
    let { body } = blob;
    for (let resumes = 0; ; resumes++) {
      try {
        for await (const chunk of body) {
          position += chunk.length;
          yield chunk;
        }
        return;
      } catch (error) {
        if (signal.aborted || resumes === MAX_RESUMES || end === undefined) throw error;
        noteFailure(error);
        if (position > end) throw error;
        log.warn({ error, digest: blob.digest, position }, 'a blob was cut; it goes on from the other side');
        const rest = await again(position, end);
        if (rest.size !== blob.size || (rest.range?.start ?? 0) > position) throw error;
        body = skip(rest.body, position - (rest.range?.start ?? 0));
      }
    }
  }
}

/** Whoever was asked could not answer; everything else is an answer. */
function isOutage(error: unknown): boolean {
  return !isOciError(error) || isOciError(error, 'UNAVAILABLE', 'UNKNOWN');
}

async function* skip(body: AsyncIterable<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array> {
  let left = bytes;
  for await (const chunk of body) {
    if (left < chunk.length) yield left === 0 ? chunk : chunk.subarray(left);
    left = Math.max(0, left - chunk.length);
  }
}
