import { isOciError, OciError } from '../oci/error.ts';
import type { Blob, Context, Registry } from '../oci/registry.ts';
import type { Log } from '../telemetry/log.ts';
import { createCircuit, type CircuitOptions } from './circuit.ts';
import { skipBytes, withIdleCheck } from '../io/body.ts';

export interface FailoverOptions extends CircuitOptions {
  log: Log;
  /** Counts what `second` was asked for. */
  fellBack(): void;
  /** Milliseconds without headers after which `second` is asked beside `first`: slow is not dead. */
  slowAfter?: number;
  /** Milliseconds after which a call fails; containerd waits for 30 s. */
  limit?: number;
}

const SLOW_AFTER = 3000;
const LIMIT = 25_000;
/** How often one body may change sides. */
const MAX_RESUMES = 4;

type Side = 'first' | 'second';

/** What a side gave. */
interface Won<T> {
  value: T;
  side: Side;
  /** Ends what the side still does for it. */
  end: (reason: Error) => void;
}

type Work<T> = (registry: Registry, signal: AbortSignal) => Promise<T>;

/** `first`, and `second` when it cannot answer: at once when it is away or fails, beside it when it is slow. What is absent from
 *  `first`, or refused by it, is an answer. A blob that is cut in the middle, or falls silent while `first` is away, is continued from
 *  the other side.
 *  @throws OciError as the one that answered does; UNAVAILABLE when neither does */
export function failover(first: Registry, second: Registry, options: FailoverOptions): Registry {
  const { log, slowAfter = SLOW_AFTER, limit = LIMIT } = options;
  const circuit = createCircuit(options);
  const usual = (): Side => (circuit.away ? 'second' : 'first');

  /** The first success of both, `from` being asked first. */
  async function either<T>({ signal }: Context, from: Side, work: Work<T>): Promise<Won<T>> {
    signal.throwIfAborted();
    const controllers = { first: new AbortController(), second: new AbortController() };
    const errors: Partial<Record<Side, unknown>> = {};
    const asked = new Set<Side>();
    const won = Promise.withResolvers<Won<T>>();
    let settling: NodeJS.Timeout | undefined;

    function endAll(reason: unknown): void {
      controllers.first.abort(reason);
      controllers.second.abort(reason);
      won.reject(reason);
    }
    // It stays: what won, a body perhaps, ends with its client too.
    signal.addEventListener('abort', () => endAll(signal.reason), { once: true });

    function fail(side: Side, error: unknown): void {
      if (controllers[side].signal.aborted) return; // it lost, or nobody waits any more
      errors[side] = error;
      if (side === 'first' && isOutage(error)) circuit.suspect(error);
      if (side === 'first' && isAnswer(error)) won.reject(error);
      else if ('first' in errors && 'second' in errors) won.reject(worse(errors.first, errors.second));
      else ask(other(side));
      if (circuit.away) settle();
    }

    /** What `second` refuses, an image of the registry's own perhaps, a `first` that is away is given a moment for, and not all the time. */
    function settle(): void {
      if (!('second' in errors) || isOutage(errors.second)) return;
      settling ??= setTimeout(() => circuit.away && endAll(errors.second), slowAfter);
    }

    function ask(side: Side): void {
      if (asked.has(side)) return;
      asked.add(side);
      if (side === 'second') options.fellBack();
      const { signal: own } = controllers[side];
      work(side === 'first' ? first : second, own).then(
        (value) => {
          if (own.aborted) return;
          controllers[other(side)].abort(new OciError('UNAVAILABLE', 'the other side answered first'));
          won.resolve({ value, side, end: (reason) => controllers[side].abort(reason) });
        },
        (error: unknown) => fail(side, error),
      );
    }

    const doubt = setTimeout(() => from === 'first' && circuit.suspect(), slowAfter / 2);
    const slow = setTimeout(() => ask(other(from)), slowAfter);
    const late = setTimeout(
      () => endAll(new OciError('UNAVAILABLE', `neither the registry nor upstream answered within ${limit / 1000} s; try again`)),
      limit,
    );
    const forget = circuit.onAway(() => {
      ask('second');
      settle();
    });
    ask(from);
    try {
      return await won.promise;
    } finally {
      forget();
      for (const timer of [doubt, slow, late, settling]) clearTimeout(timer);
    }
  }

  async function ask<T>(context: Context, work: Work<T>): Promise<T> {
    return (await either(context, usual(), work)).value;
  }

  /** The body of `won`, continued from the other side when it is cut. */
  async function* resumed(won: Won<Blob>, open: (from: Side, start: number, end?: number) => Promise<Won<Blob>>, signal: AbortSignal) {
    const { digest, range, size } = won.value;
    const end = range?.end ?? (size === undefined ? undefined : size - 1);
    let position = range?.start ?? 0;
    let { side } = won;
    let body = attended(won);
    for (let resumes = 0; ; resumes++) {
      try {
        for await (const chunk of body) {
          position += chunk.length;
          yield chunk;
        }
        return;
      } catch (error) {
        if (signal.aborted || resumes === MAX_RESUMES || (end !== undefined && position > end)) throw error;
        if (side === 'first') circuit.suspect(error);
        log.warn({ event: 'blob-resumed', error, digest, position }, 'a blob was cut; it goes on from the other side');
        try {
          const rest = await open(other(side), position, end);
          const begins = rest.value.range?.start ?? 0;
          if ((size !== undefined && rest.value.size !== size) || begins > position) {
            rest.end(new OciError('UNAVAILABLE', 'it is another blob'));
            throw error;
          }
          ({ side } = rest);
          body = skipBytes(attended(rest), position - begins);
        } catch (failure) {
          // A body of unknown length may have been whole but for its end.
          if (isOciError(failure, 'RANGE_INVALID') && failure.size === position) return;
          throw failure;
        }
      }
    }
  }

  /** A body of `first` that is silent for long is cut once that is found to be away. */
  function attended({ value: { body }, side, end }: Won<Blob>): AsyncIterable<Uint8Array> {
    if (side === 'second') return body;
    return withIdleCheck(body, slowAfter / 2, () => {
      circuit.suspect();
      return circuit.onAway(() => end(new OciError('UNAVAILABLE', 'the registry fell silent in the middle of a blob')));
    });
  }

  return {
    resolve: (repository, reference, context) =>
      ask(context, (registry, signal) => registry.resolve(repository, reference, { ...context, signal })),
    manifest: (repository, reference, context) =>
      ask(context, (registry, signal) => registry.manifest(repository, reference, { ...context, signal })),
    stat: (repository, digest, context) => ask(context, (registry, signal) => registry.stat(repository, digest, { ...context, signal })),
    referrers: (repository, digest, context) =>
      ask(context, (registry, signal) => registry.referrers(repository, digest, { ...context, signal })),

    async blob(repository, digest, context) {
      const won = await either(context, usual(), (registry, signal) => registry.blob(repository, digest, { ...context, signal }));
      const open = (from: Side, start: number, end?: number): Promise<Won<Blob>> => {
        const range = end === undefined ? { start } : { start, end };
        return either(context, from, (registry, signal) => registry.blob(repository, digest, { ...context, signal, range }));
      };
      return { ...won.value, body: resumed(won, open, context.signal) };
    },

    async *tags(repository, context) {
      const { value, side } = await either(context, usual(), async (registry, signal) => {
        const iterator = registry.tags(repository, { ...context, signal })[Symbol.asyncIterator]();
        return { iterator, head: await iterator.next() };
      });
      let { last } = context;
      try {
        for (let step = value.head; step.done !== true; step = await value.iterator.next()) {
          last = step.value;
          yield step.value;
        }
        return;
      } catch (error) {
        if (side === 'second' || !isOutage(error) || context.signal.aborted) throw error;
        circuit.suspect(error);
      } finally {
        await value.iterator.return?.();
      }
      yield* second.tags(repository, last === undefined ? context : { ...context, last });
    },
  };
}

function other(side: Side): Side {
  return side === 'first' ? 'second' : 'first';
}

/** Whoever was asked could not answer. */
function isOutage(error: unknown): boolean {
  return !isOciError(error) || isOciError(error, 'UNAVAILABLE', 'UNKNOWN');
}

/** Of `first`: nobody else need be asked. Upstream may still give what the registry was not given any more. */
function isAnswer(error: unknown): boolean {
  return !isOutage(error) && !isOciError(error, 'TOOMANYREQUESTS');
}

/** Of two failures the one that says more. */
function worse(first: unknown, second: unknown): unknown {
  const answer = [second, first].find((error) => !isOutage(error));
  if (answer !== undefined) return answer;
  const [registry, upstream] = [first, second].map((error) => (error instanceof Error ? error.message : String(error)));
  return new OciError('UNAVAILABLE', `neither the registry nor upstream can answer: ${registry}; ${upstream}`, { cause: second });
}
