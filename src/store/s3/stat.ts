import type { IncomingMessage } from 'node:http';
import {
  GetObjectCommand,
  HeadObjectCommand,
  type HeadObjectCommandInput,
  type HeadObjectCommandOutput,
  type S3Client,
} from '@aws-sdk/client-s3';
import type { DeserializeMiddleware } from '@smithy/types';
import { OciError } from '../../oci/error.ts';
import { parseContentRange } from '../../oci/range.ts';
import type { StoreContext, StoredObject } from '../store.ts';
import { headOf } from './answers.ts';
import type { Availability } from './availability.ts';
import type { Connections } from './client.ts';
import type { Corrections } from './corrections.ts';
import { statusOf } from './errors.ts';
import { headObject, readHead, type HeadAnswer } from './head.ts';
import type { Target } from './put.ts';

/** The parameters of calls for single objects. */
export interface S3Access {
  client: S3Client;
  connections: Connections;
  corrections: Corrections;
  attempt: Availability['attempt'];
  /** The location of a key. */
  target(this: void, key: string, signal: AbortSignal): Promise<Target>;
}

/** Looks an object up; with `by`, the URL of a signed HEAD, at less cost. */
export type Stat = (key: string, context: StoreContext & { by?: string }) => Promise<StoredObject | undefined>;

/** Sends a HEAD, and a GET if the response is not conclusive. */
export function createStat(access: S3Access): Stat {
  const { attempt, target } = access;
  return async (key, { signal, within, by }) => {
    const at = await target(key, signal);
    const call = { doing: `looking up ${key}`, kind: 'read', signal, limit: within, mayBeAbsent: true } as const;
    const answer = await attempt(call, (abortSignal) => askHead(access, at, { by, signal: abortSignal }));
    if (answer === undefined || answer === 'absent') return undefined;
    return answer === 'unclear' ? attempt(call, (abortSignal) => askByGet(access, at, abortSignal)) : answer.found;
  };
}

async function askHead(
  { client, connections, corrections }: S3Access,
  at: Target,
  { by, signal }: { by: string | undefined; signal: AbortSignal },
): Promise<HeadAnswer> {
  if (by !== undefined) return headObject(by, { ...connections, signal, clock: corrections.clock });
  let head: HeadAnswer | undefined;
  const command = new HeadObjectCommand(at);
  const note: DeserializeMiddleware<HeadObjectCommandInput, HeadObjectCommandOutput> = (next) => async (args) => {
    const result = await next(args);
    const { status, headers } = headOf(result.response);
    head = readHead(status, headers);
    return result;
  };
  command.middlewareStack.add(note, { step: 'deserialize', priority: 'low' });
  await client.send(command, { abortSignal: signal }).catch((error: unknown) => {
    if (head === undefined) throw error;
  });
  return head ?? 'unclear';
}

/** GETs the first byte of an object. */
async function askByGet({ client }: S3Access, at: Target, signal: AbortSignal): Promise<StoredObject> {
  try {
    const found = await client.send(new GetObjectCommand({ ...at, Range: 'bytes=0-0' }), { abortSignal: signal });
    (found.Body as IncomingMessage).destroy();
    const size = parseContentRange(found.ContentRange)?.size ?? (found.ContentRange === undefined ? found.ContentLength : undefined);
    if (size === undefined) throw unknownSize(at.Key);
    return { size, modified: found.LastModified ?? new Date() };
  } catch (error) {
    if (statusOf(error) === 416) return { size: 0, modified: new Date() };
    throw error;
  }
}

/** A response of S3 that cannot be used. */
export function unknownSize(key: string): OciError {
  return new OciError('UNAVAILABLE', `the response of S3 does not state the size of ${key}, or the range that it contains`, {
    origin: 'storage',
  });
}
