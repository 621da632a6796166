import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import { freshRuns } from '../async/fresh-runs.ts';
import { inParallel } from '../async/parallel.ts';
import { raceAbort } from '../async/race-abort.ts';
import { readAll } from '../io/body.ts';
import { isDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { CLAIMS, SWEEPS } from './keys.ts';
import { bytesSource, type Store } from './store.ts';

// A push and a pruning on different replicas agree without a lock. The push writes a claim for all
// blobs that its manifest names, then looks for sweeps that name one of them, and only then checks
// whether the blobs are stored. The pruning writes a sweep for the blobs that it is about to
// remove, then looks for claims, and keeps claimed blobs. Stores read their own writes, so at least
// one of the two sees the other; see docs/decisions/pushes-beside-pruning.md.

/** A sweep older than this belongs to a process that has ended: a running process removes nothing
 *  under such an old sweep. */
const SWEEP_LIFETIME_MS = 300_000;
/** Claims outlive the push: a pruning run that took its inventory before the manifest was written
 *  must still see them. */
const CLAIM_LIFETIME_MS = 24 * 3_600_000;
/** Younger claims of this process need not be written again. */
const CLAIM_RENEWAL_MS = CLAIM_LIFETIME_MS / 4;
const MAX_REMEMBERED = 50_000;
/** Blobs that one object claims. */
const MAX_CLAIMED = 50_000;
/** Of a write or a listing that several pushes share. */
const CALL_TIMEOUT_MS = 60_000;
/** How long the removal of a sweep may take, in ms. */
const SWEEP_END_TIMEOUT_MS = 10_000;
const SWEEP_POLL_MS = 200;
/** How long a push waits until a pruning has finished with the blobs that the manifest names. */
const SWEEP_WAIT_MS = 30_000;
const MAX_RECORD_SIZE = 16 * 2 ** 20;

/** The operations for pushes. */
export interface Claimer {
  /** Claims blobs for a manifest that is being pushed: no pruning removes them from now on. Call it
   *  before checking whether they are stored.
   *  @throws OciError UNAVAILABLE: the store cannot be written, or a pruning does not end */
  claim(this: void, digests: readonly Digest[], signal: AbortSignal): Promise<void>;
  /** Waits until no pruning removes any of the blobs or their records. Call it after writing
   *  records that a pruning may have seen in their old state.
   *  @returns whether a pruning run was removing some of them: then the written records may be gone
   *  @throws OciError UNAVAILABLE: a pruning does not end */
  awaitSweeps(this: void, digests: readonly Digest[], signal: AbortSignal): Promise<boolean>;
}

/** Pushes at the same time share the objects that they write and the listings that they need. */
export function createClaimer(store: Store): Claimer {
  const claimedAt = new LRUCache<Digest, number>({ max: MAX_REMEMBERED });
  let wanted = new Set<Digest>();
  const writeWanted = freshRuns(() => {
    const digests = [...wanted];
    wanted = new Set();
    return writeClaims(store, digests);
  });
  const readSweeps = freshRuns(() => sweptBlobs(store));

  /** A claim that was written, and whose sweeps have ended: every later sweep sees it. */
  function isClaimed(digest: Digest): boolean {
    const age = Date.now() - (claimedAt.get(digest) ?? -Infinity);
    return age >= 0 && age < CLAIM_RENEWAL_MS;
  }

  const awaitSweeps: Claimer['awaitSweeps'] = async (digests, signal) => {
    const deadline = performance.now() + SWEEP_WAIT_MS;
    for (let wasSwept = false; ; wasSwept = true) {
      const swept = await raceAbort(readSweeps(''), signal);
      if (!digests.some((digest) => swept.has(digest))) return wasSwept;
      if (performance.now() > deadline) {
        throw new OciError('UNAVAILABLE', 'pruning is removing blobs that the manifest names; push it again shortly', { retryAfter: 10 });
      }
      await delay(SWEEP_POLL_MS, undefined, { signal });
    }
  };

  return {
    async claim(digests, signal) {
      const open = digests.filter((digest) => !isClaimed(digest));
      if (open.length === 0) return;
      const at = Date.now();
      for (const digest of open) wanted.add(digest);
      await raceAbort(writeWanted(''), signal);
      await awaitSweeps(open, signal);
      for (const digest of open) claimedAt.set(digest, at);
    },
    awaitSweeps,
  };
}

async function writeClaims(store: Store, digests: readonly Digest[]): Promise<void> {
  for (let at = 0; at < digests.length; at += MAX_CLAIMED) {
    const key = `${CLAIMS}${Date.now()}-${randomBytes(8).toString('hex')}`;
    const some = digests.slice(at, at + MAX_CLAIMED);
    await store.write(key, bytesSource(Buffer.from(JSON.stringify(some))), { signal: AbortSignal.timeout(CALL_TIMEOUT_MS) });
  }
}

/** The blobs that pruning runs are removing. */
async function sweptBlobs(store: Store): Promise<Set<Digest>> {
  const signal = AbortSignal.timeout(CALL_TIMEOUT_MS);
  const swept = new Set<Digest>();
  for await (const { key, modified } of store.list(SWEEPS, { signal })) {
    if (Date.now() - modified.getTime() > SWEEP_LIFETIME_MS) continue;
    for (const digest of await readDigests(store, key, signal)) swept.add(digest);
  }
  return swept;
}

export interface Sweep {
  /** The blobs that may be removed: no push has claimed them. */
  free: Set<Digest>;
  /** False once a push might take this sweep for an abandoned one: then nothing more may be
   *  removed. */
  isValid(this: void): boolean;
  /** Lets pushes go on. Call it once every removal has been answered: a removal that failed may
   *  still take effect, and the pushes then wait until the sweep has expired. */
  end(this: void): Promise<void>;
}

/** The claims of pushes read so far. A claim never changes: a pruning reads each of them once. */
export interface Claims {
  read: Set<string>;
  claimed: Set<Digest>;
}

export function noClaims(): Claims {
  return { read: new Set(), claimed: new Set() };
}

const CLAIMS_AT_ONCE = 16;

async function readClaims(store: Store, claims: Claims, signal: AbortSignal): Promise<void> {
  async function* unread(): AsyncGenerator<string> {
    for await (const { key } of store.list(CLAIMS, { signal })) if (!claims.read.has(key)) yield key;
  }
  await inParallel(unread(), CLAIMS_AT_ONCE, async (key) => {
    for (const digest of await readDigests(store, key, signal)) claims.claimed.add(digest);
    claims.read.add(key);
  });
}

/** Announces that blobs are about to be removed, and leaves out those that a push has claimed.
 *  @param claims the claims read before: a day of pushes may have left more than can be read while
 *  the sweep is valid */
export async function beginSweep(
  store: Store,
  digests: Iterable<Digest>,
  { claims, signal }: { claims: Claims; signal: AbortSignal },
): Promise<Sweep> {
  await readClaims(store, claims, signal);
  const started = performance.now();
  const free = new Set(digests);
  const key = `${SWEEPS}${Date.now()}-${randomBytes(8).toString('hex')}`;
  // Not the caller's signal: pushes wait for what a stopped run leaves.
  const end = (): Promise<void> => store.remove(key, { signal: AbortSignal.timeout(SWEEP_END_TIMEOUT_MS) });
  try {
    await store.write(key, bytesSource(Buffer.from(JSON.stringify([...free]))), { signal });
    await readClaims(store, claims, signal);
  } catch (error) {
    await end().catch(() => undefined); // it expires
    throw error;
  }
  for (const digest of free) if (claims.claimed.has(digest)) free.delete(digest);
  return {
    free,
    isValid: () => performance.now() - started < SWEEP_LIFETIME_MS / 2,
    end,
  };
}

/** Removes expired claims and sweeps. */
export async function removeOldClaims(store: Store, signal: AbortSignal): Promise<void> {
  for (const [prefix, lifetime] of [
    [CLAIMS, CLAIM_LIFETIME_MS],
    [SWEEPS, CLAIM_LIFETIME_MS],
  ] as const) {
    for await (const { key, modified } of store.list(prefix, { signal })) {
      if (Date.now() - modified.getTime() > lifetime) await store.remove(key, { signal });
    }
  }
}

async function readDigests(store: Store, key: string, signal: AbortSignal): Promise<Digest[]> {
  const found = await store.read(key, { signal });
  const bytes = found === undefined ? undefined : await readAll(found.body, MAX_RECORD_SIZE);
  if (bytes === undefined) return [];
  const list: unknown = JSON.parse(bytes.toString());
  return Array.isArray(list) ? list.filter((digest): digest is Digest => typeof digest === 'string' && isDigest(digest)) : [];
}
