import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { json } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { PRUNING } from '../store/keys.ts';
import { bytesSource, type Store, type StoreContext } from '../store/store.ts';

/** Elects the replica that does work for all replicas, such as pruning the store. Without
 *  conditional writes, the election is best effort: a replica writes a record and reads it again.
 *  Two replicas at once waste work but break nothing. */
export interface Lease {
  /** Aborted when another process has taken the lease, or the record cannot be renewed. */
  signal: AbortSignal;
  /** Releases the lease. `finished`: the work has been done. */
  release(finished: boolean): Promise<void>;
}

export interface LeaseState {
  /** The process: its host and a random part. */
  owner: string;
  /** When it last renewed the record; empty: it has released the lease. */
  renewedAt: string;
  /** When any process last finished a run; empty: never. */
  finishedAt: string;
}

export interface LeaseTiming {
  /** How long a record is valid without renewal, in ms; it is renewed three times as often. */
  lifetime: number;
  /** How long a process that has written the record waits before it checks that no other one has
   *  written it since, in ms. */
  settle: number;
}

const TIMING: LeaseTiming = { lifetime: 30_000, settle: 1000 };

/** The lease of the work whose record is `key` (pruning by default), or its holder. @throws
 *  OciError UNAVAILABLE: the store cannot be read or written */
export async function takeLease(
  store: Store,
  context: StoreContext,
  { lifetime = TIMING.lifetime, settle = TIMING.settle, key = PRUNING }: Partial<LeaseTiming> & { key?: string } = {},
): Promise<{ lease: Lease } | { holder: string }> {
  const owner = `${hostname()} ${randomUUID().slice(0, 8)}`;
  const before = await readLease(store, context, key);
  if (before !== undefined && isHeld(before, lifetime)) return { holder: before.owner };
  const finishedAt = before?.finishedAt ?? '';
  await write(store, { key, state: { owner, renewedAt: new Date().toISOString(), finishedAt } }, context);
  await delay(settle, undefined, { signal: context.signal });
  const now = await readLease(store, context, key);
  if (now?.owner !== owner) return { holder: now?.owner ?? 'another process' };

  const lost = new AbortController();
  const timer = setInterval(() => {
    renew().catch((error: unknown) => lost.abort(error));
  }, lifetime / 3);
  timer.unref();

  async function renew(): Promise<void> {
    const own = { signal: AbortSignal.timeout(lifetime / 2) };
    const current = await readLease(store, own, key);
    if (current?.owner !== owner) throw new Error(`${current?.owner ?? 'another process'} has taken over`);
    await write(store, { key, state: { ...current, renewedAt: new Date().toISOString() } }, own);
  }

  return {
    lease: {
      signal: lost.signal,
      async release(finished) {
        clearInterval(timer);
        if (lost.signal.aborted) return;
        const done = finished ? new Date().toISOString() : finishedAt;
        await write(store, { key, state: { owner, renewedAt: '', finishedAt: done } }, { signal: AbortSignal.timeout(lifetime / 2) });
      },
    },
  };
}

export function isHeld({ renewedAt }: LeaseState, lifetime = TIMING.lifetime): boolean {
  return renewedAt !== '' && Math.abs(Date.now() - Date.parse(renewedAt)) < lifetime;
}

/** Undefined: the work has never been done on this store, or the record is damaged. */
export async function readLease(store: Store, context: StoreContext, key = PRUNING): Promise<LeaseState | undefined> {
  const found = await store.read(key, context);
  if (found === undefined) return undefined;
  try {
    const state = ((await json(found.body)) ?? {}) as Partial<Record<keyof LeaseState, unknown>>;
    return { owner: textOf(state.owner), renewedAt: textOf(state.renewedAt), finishedAt: textOf(state.finishedAt) };
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function write(store: Store, { key, state }: { key: string; state: LeaseState }, context: StoreContext): Promise<void> {
  return store.write(key, bytesSource(Buffer.from(JSON.stringify(state))), context);
}
