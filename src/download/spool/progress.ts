import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { isDigest, type Digest } from '../../oci/digest.ts';
import { absentAsUndefined } from '../../io/absent.ts';
import { fieldsOf } from '../../io/untrusted.ts';
import type { ByteRanges } from './byte-ranges.ts';

/** The content of a spool file. */
export interface SpoolContent {
  digest: Digest;
  /** The size of the whole blob, in bytes. */
  size: number;
  /** The bytes that are in the file: [start, end), ascending. */
  ranges: [start: number, end: number][];
}

/** Records the ranges that a spool file contains, in a file next to it, so that another process can
 *  continue the download. */
export interface SpoolProgress {
  /** Call it after each write. Records the state every few megabytes, a few times a second. */
  written(this: void, bytes: number, size: number | undefined, have: ByteRanges): void;
  /** Records the final state. */
  finish(this: void, content: SpoolContent): Promise<void>;
  /** @throws the file system's errors */
  remove(this: void): Promise<void>;
}

/** The minimum number of bytes between two records: a killed process has to download these
 *  again. */
const RECORD_EVERY_BYTES = 2 ** 21;
/** The minimum time between two records, in ms: a record takes as much processor time as a megabyte
 *  of the blob. */
const RECORD_EVERY_MS = 250;
const BOOT_ID = '/proc/sys/kernel/random/boot_id';

/** The identity of the running kernel. Written bytes survive the end of the process, but not a
 *  power failure, so a record of another boot is not valid. Undefined: this system has none, and
 *  downloads are not continued. */
async function bootId(): Promise<string | undefined> {
  return (knownBootId ??= (await absentAsUndefined(readFile(BOOT_ID, 'utf8')))?.trim());
}
let knownBootId: string | undefined;

export function createSpoolProgress(path: string, digest: Digest): SpoolProgress {
  let latest: { size: number; have: ByteRanges } | undefined;
  let unrecorded = 0;
  let recordedAt = performance.now();
  let recording: Promise<void> | undefined;
  let due: NodeJS.Timeout | undefined;
  let isOver = false;
  let isRemoved = false;

  async function record(content: SpoolContent): Promise<void> {
    const boot = await bootId();
    if (boot === undefined || isRemoved) return;
    const temporary = `${path}.new`;
    await writeFile(temporary, JSON.stringify({ boot, ...content }), { mode: 0o600 });
    await rename(temporary, path);
  }

  /** Without a record, the blob is downloaded again: no reason to fail. */
  function start(content: SpoolContent): Promise<void> {
    return record(content).catch(() => undefined);
  }

  function recordNow({ size, have }: NonNullable<typeof latest>): void {
    due = undefined;
    recordedAt = performance.now();
    unrecorded = 0;
    recording = start({ digest, size, ranges: have.ranges() }).finally(() => {
      recording = undefined;
      recordWhenDue();
    });
  }

  /** The timer is for bytes after which nothing arrives for a while. */
  function recordWhenDue(): void {
    const state = latest;
    if (state === undefined || unrecorded < RECORD_EVERY_BYTES || isOver || recording !== undefined || due !== undefined) return;
    const wait = recordedAt + RECORD_EVERY_MS - performance.now();
    if (wait > 0) due = setTimeout(() => recordNow(state), wait).unref();
    else recordNow(state);
  }

  function end(): void {
    isOver = true;
    clearTimeout(due);
  }

  return {
    written(bytes, size, have) {
      unrecorded += bytes;
      if (size === undefined) return;
      latest = { size, have };
      recordWhenDue();
    },
    async finish(content) {
      end();
      await recording;
      await start(content);
    },
    async remove() {
      end();
      isRemoved = true;
      await recording;
      await rm(path, { force: true });
    },
  };
}

/** Reads a record. Undefined: there is none that can be used. */
export async function readSpoolProgress(path: string): Promise<SpoolContent | undefined> {
  const text = await absentAsUndefined(readFile(path, 'utf8'));
  const boot = await bootId();
  if (text === undefined || boot === undefined) return undefined;
  try {
    const fields = fieldsOf(JSON.parse(text));
    const { digest, size, ranges } = fields;
    if (fields['boot'] !== boot || typeof digest !== 'string' || !isDigest(digest) || !isSize(size) || !isRanges(ranges, size))
      return undefined;
    return { digest, size, ranges };
  } catch {
    return undefined; // a record that was cut
  }
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}

function isRanges(value: unknown, size: number): value is SpoolContent['ranges'] {
  if (!Array.isArray(value)) return false;
  let position = -1;
  return value.every((range: unknown) => {
    if (!Array.isArray(range) || range.length !== 2) return false;
    const [start, end] = range as [unknown, unknown];
    if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end)) return false;
    const isAscending = (start as number) > position && (end as number) > (start as number) && (end as number) <= size;
    position = end as number;
    return isAscending;
  });
}
