import type { Context, Registry } from '../oci/registry.ts';
import type { Log } from '../telemetry/log.ts';
import { createOutage, type OutageOptions } from './outage.ts';
import { isOutage, race, type Answer, type Side } from './race.ts';
import { resumedBody } from './resume.ts';

export interface FailoverOptions extends OutageOptions {
  log: Log;
  /** Counts requests to `second`. */
  fellBack(): void;
  /** Milliseconds without headers after which `second` is asked as well: a slow registry is not
   *  down. */
  slowAfter?: number;
  /** Milliseconds after which a call fails; containerd waits for 30 s. */
  limit?: number;
}

const SLOW_AFTER_MS = 3000;
const LIMIT_MS = 25_000;

/** Reads from `first`, and from `second` when `first` cannot answer: at once if it is down or
 *  fails, in parallel if it is slow. Answers of `first` are final, except refusals: see `race`. A
 *  blob that is cut in the middle, or falls silent while `first` is down, continues from the other
 *  side.
 *  @throws OciError as the side that answered does; UNAVAILABLE when neither does */
export function failover(first: Registry, second: Registry, options: FailoverOptions): Registry {
  const { log, slowAfter: slowAfterMs = SLOW_AFTER_MS, limit: limitMs = LIMIT_MS } = options;
  const outage = createOutage(options);
  const sides = { first, second };
  const usualSide = (): Side => (outage.isDown ? 'second' : 'first');

  function ask<T>({ signal }: Context, from: Side, work: (registry: Registry, signal: AbortSignal) => Promise<T>): Promise<Answer<T>> {
    const asked = { outage, slowAfterMs, limitMs, onSecond: () => options.fellBack(), signal };
    return race((side, own) => work(sides[side], own), from, asked);
  }

  async function askUsual<T>(context: Context, work: (registry: Registry, signal: AbortSignal) => Promise<T>): Promise<T> {
    return (await ask(context, usualSide(), work)).value;
  }

  return {
    resolve: (repository, reference, context) =>
      askUsual(context, (registry, signal) => registry.resolve(repository, reference, { ...context, signal })),
    manifest: (repository, reference, context) =>
      askUsual(context, (registry, signal) => registry.manifest(repository, reference, { ...context, signal })),
    stat: (repository, digest, context) =>
      askUsual(context, (registry, signal) => registry.stat(repository, digest, { ...context, signal })),
    referrers: (repository, digest, context) =>
      askUsual(context, (registry, signal) => registry.referrers(repository, digest, { ...context, signal })),

    async blob(repository, digest, context) {
      const open = (from: Side, start: number, end?: number) => {
        const range = end === undefined ? { start } : { start, end };
        return ask(context, from, (registry, signal) => registry.blob(repository, digest, { ...context, signal, range }));
      };
      const answer = await ask(context, usualSide(), (registry, signal) => registry.blob(repository, digest, { ...context, signal }));
      const body = resumedBody(answer, { outage, log, signal: context.signal, silentAfterMs: slowAfterMs / 2, open });
      return { ...answer.value, body };
    },

    async *tags(repository, context) {
      const { value, side } = await ask(context, usualSide(), async (registry, signal) => {
        const iterator = registry.tags(repository, { ...context, signal })[Symbol.asyncIterator]();
        return { iterator, head: await iterator.next() };
      });
      let { last } = context;
      try {
        for (let step = value.head; step.done !== true; step = await value.iterator.next()) {
          last = step.value.at(-1) ?? last;
          yield step.value;
        }
        return;
      } catch (error) {
        if (side === 'second' || !isOutage(error) || context.signal.aborted) throw error;
        outage.suspect(error);
      } finally {
        await value.iterator.return?.();
      }
      yield* second.tags(repository, last === undefined ? context : { ...context, last });
    },
  };
}
