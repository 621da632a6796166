import { agrees, createDigestHash, type Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { blobKey, memberKey, parseRepositoryKey, REPOSITORIES } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import { takeInventory, type Inventory } from './inventory.ts';
import { inParallel } from '../async/parallel.ts';

export interface VerifyOptions {
  signal: AbortSignal;
  /** The number of blobs read concurrently. */
  parallel: number;
  progress?(this: void, bytes: number, total: number): void;
  /** Fetches a blob or a manifest again, verified, and stores it. Absent: nothing is repaired. */
  refetch?: (damage: Damage) => Promise<void>;
}

export interface Damage {
  digest: Digest;
  /** wrong: its bytes do not match its digest. missing: an image names it, its repository had it,
   *  and it is no longer stored. */
  kind: 'wrong' | 'missing';
  /** Whether it is a manifest or an index. */
  isManifest: boolean;
  /** The repositories that may serve it. */
  repositories: Repository[];
}

export interface VerifyResult {
  blobs: number;
  bytes: number;
  damages: (Damage & { outcome: 'found' | 'repaired' | 'removed'; error?: unknown })[];
}

/** Reads every blob of a store and compares it with its digest, and checks that the blobs that
 *  images name are stored. A repair removes a wrong blob that cannot be fetched again: a miss is
 *  better than a wrong answer.
 *  @throws OciError UNAVAILABLE: the store cannot be listed or read */
export async function verify(store: Store, options: VerifyOptions): Promise<VerifyResult> {
  const { signal, refetch } = options;
  const inventory = await takeInventory(store, { signal });
  const wrong = await readAll(store, inventory, options);
  const missing = await findMissing(store, inventory, signal);
  const damages = [
    ...wrong.map((digest) => ({ digest, kind: 'wrong' as const, isManifest: inventory.byDigest.has(digest) })),
    ...missing.map((digest) => ({ digest, kind: 'missing' as const, isManifest: false })),
  ];
  const owners = await repositoriesOf(store, new Set(damages.map(({ digest }) => digest)), signal);
  const result: VerifyResult = { blobs: inventory.blobs.count(), bytes: inventory.blobs.bytes(), damages: [] };
  for (const found of damages) {
    const damage: Damage = { ...found, repositories: owners.get(found.digest) ?? [] };
    result.damages.push({
      ...damage,
      ...(refetch === undefined ? { outcome: 'found' } : await repair(store, damage, { refetch, signal })),
    });
  }
  return result;
}

async function readAll(store: Store, { blobs }: Inventory, options: VerifyOptions): Promise<Digest[]> {
  const { signal, parallel, progress } = options;
  const wrong: Digest[] = [];
  let bytes = 0;
  function* all(): Generator<Digest> {
    for (let blob = 0; blob < blobs.count(); blob++) yield blobs.digest(blob);
  }
  await inParallel(all(), parallel, async (digest) => {
    const content = await store.read(blobKey(digest), { signal });
    if (content === undefined) return; // pruned in the meantime
    const hash = createDigestHash(digest);
    for await (const chunk of content.body) {
      hash.update(chunk);
      progress?.((bytes += chunk.length), blobs.bytes());
    }
    if (!agrees(hash, digest)) wrong.push(digest);
  });
  return wrong.sort();
}

/** Blobs that were served once and are no longer stored. Many stores lack blobs of an image that
 *  were never pulled: layers that the nodes already had, platforms that no node has. */
async function findMissing(store: Store, { images }: Inventory, signal: AbortSignal): Promise<Digest[]> {
  const missing = new Set<Digest>();
  for (const image of images) {
    if (image.isIndex) continue;
    for (const digest of image.missing) {
      for (const { repository } of image.places) {
        const member = await store.stat(memberKey(repository, digest), { signal });
        if (member !== undefined && (await store.stat(blobKey(digest), { signal })) === undefined) missing.add(digest);
      }
    }
  }
  return [...missing].sort();
}

async function repositoriesOf(store: Store, digests: ReadonlySet<Digest>, signal: AbortSignal): Promise<Map<Digest, Repository[]>> {
  const owners = new Map<Digest, Repository[]>();
  if (digests.size === 0) return owners;
  for await (const { key } of store.list(REPOSITORIES, { signal })) {
    const record = parseRepositoryKey(key);
    if (record === undefined || !('member' in record) || !digests.has(record.member)) continue;
    owners.set(record.member, [...(owners.get(record.member) ?? []), record.repository]);
  }
  return owners;
}

async function repair(
  store: Store,
  damage: Damage,
  { refetch, signal }: { refetch: (damage: Damage) => Promise<void>; signal: AbortSignal },
): Promise<{ outcome: 'found' | 'repaired' | 'removed'; error?: unknown }> {
  try {
    await refetch(damage);
    return { outcome: 'repaired' };
  } catch (error) {
    signal.throwIfAborted();
    if (damage.kind === 'missing') return { outcome: 'found', error };
    await store.remove(blobKey(damage.digest), { signal });
    return { outcome: 'removed', error };
  }
}
