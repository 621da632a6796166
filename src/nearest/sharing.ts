import { randomBytes } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createDownloads, type Downloads } from '../download/downloads.ts';
import type { Digest } from '../oci/digest.ts';
import type { ByteRange } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import { makeDirectory } from '../io/make-directory.ts';
import type { Log } from '../telemetry/log.ts';
import type { SharingNode } from './agreement.ts';
import { createSharedBlobs, type SharedBlobs } from './shared-blobs.ts';
import { proveKey, readTicket, type TicketClaims } from './ticket.ts';

export interface SharingOptions {
  directory: string;
  /** Bytes. */
  maxSize: number;
  /** Milliseconds. */
  keep: number;
  zone: string;
  log: Log;
}

/** The blobs that an agent shares with other nodes: those that it is receiving, and those that it
 *  has recently received. */
export interface Sharing {
  readonly downloads: Downloads;
  /** This node, as reported to the registry. Undefined until `listensAt` has been called. */
  node(this: void): SharingNode | undefined;
  listensAt(this: void, address: string): void;
  /** The claims of the ticket in a request target; undefined: there is no valid one. */
  admit(this: void, target: string): TicketClaims | undefined;
  /** Proves to the registry that this process has the key of its node. */
  prove(this: void, nonce: string): string;
  /** Waits a moment for a blob that this node is about to receive. Undefined: it is not receiving
   *  the blob. */
  find(this: void, digest: Digest, signal: AbortSignal): Promise<SharedBlob | undefined>;
  /** Bytes on disk. */
  used(this: void): number;
  /** Called when a blob is no longer kept. */
  onGone(this: void, listener: (digest: Digest) => void): void;
  close(this: void, signal: AbortSignal): Promise<void>;
}

export interface SharedBlob {
  /** @throws OciError */
  open(range: ByteRange | undefined, signal: AbortSignal): Promise<Blob | undefined>;
}

const KEY_BYTES = 32;
/** How long to wait for such a blob: the registry may send other nodes here before its own response
 *  has arrived. */
const FIND_TIMEOUT_MS = 500;
const FIND_INTERVAL_MS = 20;
/** How long an old agent of this node may still serve from its own directory, in ms. */
const FORMER_MS = 60_000;

/** Opens the directory. Each process uses a separate folder in it, because two agents run at the
 *  same time during an upgrade.
 *  @throws the file system's errors */
export async function openSharing({ directory, maxSize, keep, zone, log }: SharingOptions): Promise<Sharing> {
  const key = randomBytes(KEY_BYTES).toString('base64url');
  const own = `${process.pid}-${randomBytes(6).toString('hex')}`;
  let address: string | undefined;
  let gone: (digest: Digest) => void = () => undefined;
  await makeDirectory(directory);
  const former = (await readdir(directory)).filter((name) => /^\d+-[0-9a-f]{12}$/.test(name));
  const path = join(directory, own);
  await makeDirectory(path);
  setTimeout(() => {
    for (const name of former) rm(join(directory, name), { recursive: true, force: true }).catch(() => undefined); // the next start tries again
  }, FORMER_MS).unref();
  const blobs: SharedBlobs = createSharedBlobs({ directory: path, maxSize, keepMs: keep, gone: (digest) => gone(digest) });
  const downloads = await createDownloads({
    keeper: blobs,
    spoolDirectory: path,
    log,
    metrics: { downloadStarted: () => undefined, downloadEnded: () => undefined },
    maxHelpers: 0,
  });

  return {
    downloads,
    node: () => (address === undefined ? undefined : { address, key, zone, keep: keep / 1000 }),
    listensAt: (at) => void (address = at),
    admit: (target) => (address === undefined ? undefined : readTicket(target, { address, key })),
    prove: (nonce) => proveKey(key, nonce),
    used: blobs.used,
    onGone: (listener) => void (gone = listener),

    async find(digest, signal) {
      for (const end = performance.now() + FIND_TIMEOUT_MS; performance.now() < end;) {
        if (blobs.has(digest)) return { open: (range, signal) => blobs.open(digest, range, signal) };
        const running = downloads.running(digest);
        if (running !== undefined && running.failure() === undefined) {
          // It may be complete by the time it is opened.
          return {
            open: async (range, signal) =>
              ((await running.isJoinable(signal)) ? await running.read(range, signal) : undefined) ?? blobs.open(digest, range, signal),
          };
        }
        await delay(FIND_INTERVAL_MS, undefined, { signal });
      }
      return undefined;
    },

    async close(signal) {
      await downloads.close(signal);
      blobs.close();
      await rm(path, { recursive: true, force: true });
    },
  };
}
