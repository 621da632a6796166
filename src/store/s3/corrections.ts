import type { S3Client } from '@aws-sdk/client-s3';
import type { Lessons } from './answers.ts';
import { headersOf, statusOf } from './errors.ts';
import type { S3Options } from './options.ts';

/** Clock differences from this many ms on are corrected: a Date header has seconds, and a response
 *  takes time. */
const MIN_OFFSET_MS = 5000;
/** Clock differences of at least this many ms are logged. */
const NOTABLE_OFFSET_MS = 60_000;

/** Corrections that S3's responses make to the configuration and to this machine's clock. */
export interface Corrections extends Lessons {
  /** The region to sign for. */
  region(this: void): string;
  /** The time by S3's clock. */
  now(this: void): Date;
  /** Whether the call that failed with `error` may succeed now, because its response corrected
   *  something. */
  corrected(this: void, error: unknown): boolean;
  /** Makes a client sign by S3's clock. */
  apply(this: void, client: S3Client): void;
}

export function createCorrections({ region: configured, bucket, log }: Pick<S3Options, 'region' | 'bucket' | 'log'>): Corrections {
  let region = configured;
  let offset = 0;
  let clockChanged = false;
  const clients: S3Client[] = [];

  /** Adopts the region that a refusal names. */
  function learnRegion(error: unknown): boolean {
    const named = headersOf(error)['x-amz-bucket-region'] ?? (error as { Region?: string }).Region ?? '';
    if (named === '' || named === region || ![301, 307, 400, 403].includes(statusOf(error) ?? 0)) return false;
    log?.warn(
      { event: 's3-region-corrected', bucket, configured, region: named },
      'the bucket is in another region than configured; using that one',
    );
    region = named;
    return true;
  }

  return {
    region: () => region,
    now: () => new Date(Date.now() + offset),
    apply: (client) => void clients.push(client),

    clock(measured) {
      const next = Math.abs(measured) < MIN_OFFSET_MS ? 0 : measured;
      if (Math.abs(next - offset) < MIN_OFFSET_MS) return;
      offset = next;
      clockChanged = true;
      for (const client of clients) client.config.systemClockOffset = offset;
      if (Math.abs(offset) < NOTABLE_OFFSET_MS) return;
      const seconds = Math.round(offset / 1000);
      log?.warn({ event: 's3-clock-skew', seconds }, "this machine's clock differs from that of S3; signing requests by S3's clock");
    },

    corrected(error) {
      if (learnRegion(error)) return true;
      const again = clockChanged && statusOf(error) === 403;
      clockChanged = false;
      return again;
    },
  };
}
