import type { Hash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { singleFlight, type SingleFlight } from '../async/single-flight.ts';
import { discardBody } from '../io/body.ts';
import { withheldBody } from '../download/withheld.ts';
import { agrees, createDigestHash, type Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import type { RangeRequest } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import { blobKey } from '../store/keys.ts';
import type { Store, StoredContent } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';

/** The blobs stored on this machine. */
export interface LocalBlobs {
  /** Opens a blob, with one call to the store. Undefined: the blob is missing, unreadable or
   *  damaged.
   *  @throws OciError RANGE_INVALID */
  open(digest: Digest, options: { range: RangeRequest | undefined; signal: AbortSignal }): Promise<Blob | undefined>;
  /** Call it when a verified blob has just been stored. */
  trust(digest: Digest, size: number): void;
}

/** How long verifying a file may take, in ms. */
const VERIFY_TIMEOUT_MS = 300_000;
const TRUSTED_BLOBS = 50_000;
/** Files of up to this many bytes are verified before response headers are sent: a damaged one can
 *  then be fetched again, and the response is not cut. */
const SMALL_BYTES = 2 ** 20;

/** The state of a file when its bytes were last verified. */
interface Trusted {
  size: number;
  /** When the file was last modified, in ms since the epoch. Undefined until the file is first
   *  read: it was then modified no later than `before`. */
  modified: number | undefined;
  before: number;
}

/** Sends a file without hashing it if this process has stored or verified the file and it has not
 *  been modified since. Any other file is hashed while it is sent, and its end is withheld until
 *  the digest matches (promise 3); if a range is requested, the whole file is verified first. A
 *  damaged file is removed. */
export function createLocalBlobs(local: Store, log: Log): LocalBlobs {
  const blobs: Verified = {
    local,
    log,
    trusted: new LRUCache({ maxSize: TRUSTED_BLOBS, sizeCalculation: () => 1 }),
    verifying: singleFlight({ timeoutMs: VERIFY_TIMEOUT_MS }),
  };
  return {
    async open(digest, { range, signal }) {
      try {
        return await open(blobs, digest, { range, signal });
      } catch (error) {
        if (signal.aborted || isOciError(error, 'RANGE_INVALID')) throw error;
        log.warn({ event: 'stored-blob-unreadable', digest, error }, 'cannot read the stored copy of a blob; fetching it again');
        return undefined;
      }
    },
    trust: (digest, size) => void blobs.trusted.set(digest, { size, modified: undefined, before: Date.now() }),
  };
}

interface Verified {
  local: Store;
  log: Log;
  trusted: LRUCache<Digest, Trusted>;
  verifying: SingleFlight<boolean>;
}

async function open(
  blobs: Verified,
  digest: Digest,
  { range, signal }: { range: RangeRequest | undefined; signal: AbortSignal },
): Promise<Blob | undefined> {
  const content = await blobs.local.read(blobKey(digest), range === undefined ? { signal } : { signal, range });
  if (content === undefined) return undefined;
  const { size, body } = content;
  if (isTrusted(blobs, digest, content)) return { digest, size, range: content.range, body };
  if (range === undefined && size > SMALL_BYTES) {
    return { digest, size, range: undefined, body: whileHashing(blobs, { digest, content }, signal) };
  }
  await discardBody(body);
  return (await verify(blobs, digest, signal)) ? open(blobs, digest, { range, signal }) : undefined;
}

function isTrusted({ trusted }: Verified, digest: Digest, { size, modified }: StoredContent): boolean {
  const seen = trusted.get(digest);
  if (seen === undefined || seen.size !== size) return false;
  if (seen.modified === undefined && modified.getTime() <= seen.before) seen.modified = modified.getTime();
  return seen.modified === modified.getTime();
}

function whileHashing(blobs: Verified, { digest, content }: { digest: Digest; content: StoredContent }, signal: AbortSignal): Blob['body'] {
  const hash = createDigestHash(digest);
  async function check(): Promise<void> {
    if (await judge(blobs, { digest, content, hash })) return;
    throw new OciError('UNAVAILABLE', `the stored copy of ${digest} is damaged; pull it again`, { origin: 'storage' });
  }
  return withheldBody(content.body, { size: content.size, signal }, { hash, check });
}

/** Reads a whole file to verify its digest. */
function verify(blobs: Verified, digest: Digest, signal: AbortSignal): Promise<boolean> {
  return blobs.verifying(digest, signal, async (signal) => {
    const content = await blobs.local.read(blobKey(digest), { signal });
    if (content === undefined) return false;
    const hash = createDigestHash(digest);
    for await (const chunk of content.body) hash.update(chunk);
    return judge(blobs, { digest, content, hash });
  });
}

/** Compares a file's hash with its digest, and trusts or removes the file. */
async function judge(
  { local, log, trusted }: Verified,
  { digest, content, hash }: { digest: Digest; content: StoredContent; hash: Hash },
): Promise<boolean> {
  const { size, modified } = content;
  if (agrees(hash, digest)) {
    trusted.set(digest, { size, modified: modified.getTime(), before: 0 });
    return true;
  }
  log.error({ event: 'stored-blob-damaged', digest, size }, 'a stored blob is damaged; removing it, to fetch it again');
  trusted.delete(digest);
  await local.remove(blobKey(digest), { signal: AbortSignal.timeout(10_000) });
  return false;
}
