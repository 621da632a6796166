import { request, STATUS_CODES, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as requestSecurely } from 'node:https';
import type { StoredObject } from '../store.ts';
import type { Connections } from './client.ts';
import { clockOffset, foreignness } from './answers.ts';
import { ForeignAnswer, isSigned } from './errors.ts';

/** The result of a HEAD. Its response has no body with details: `unclear` needs a GET. */
export type HeadAnswer = { found: StoredObject } | 'absent' | 'unclear';

/** Sends a HEAD to a presigned URL. The SDK signs each request again and runs all of its
 *  middleware, which takes eight times as much time of the event loop.
 *  @throws ForeignAnswer; Error: no response, or one that is not a success, with its status where
 *  the SDK's errors have it */
export function headObject(
  url: string,
  { agent, secureAgent, signal, clock }: Connections & { signal: AbortSignal; clock: (offset: number) => void },
): Promise<HeadAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<HeadAnswer>();
  const options: RequestOptions = { method: 'HEAD', signal };
  const asked = url.startsWith('https:') ? requestSecurely(url, { ...options, agent: secureAgent }) : request(url, { ...options, agent });
  asked.on('response', (answer) => {
    answer.resume(); // its connection is free again
    const offset = clockOffset(headersOf(answer));
    if (offset !== undefined) clock(offset);
    try {
      const status = answer.statusCode ?? 0;
      const head = readHead(status, headersOf(answer));
      // A refusal concerns the signature: a newly signed request may succeed.
      if (head === 'unclear' && status !== 200 && status !== 404) reject(refusal(status));
      else resolve(head);
    } catch (error) {
      reject(error);
    }
  });
  asked.on('error', reject);
  asked.end();
  return promise;
}

/** @throws ForeignAnswer; Error: a refusal without a message */
export function readHead(status: number, headers: Readonly<Record<string, string | undefined>>): HeadAnswer {
  const foreign = foreignness({ command: 'HeadObjectCommand', status, headers });
  if (foreign !== undefined) throw new ForeignAnswer(status, foreign);
  if (status === 200) {
    const { 'content-length': length, 'last-modified': modified, 'content-encoding': encoding } = headers;
    if (length === undefined || modified === undefined || (encoding !== undefined && encoding !== 'identity')) return 'unclear';
    return { found: { size: Number(length), modified: new Date(modified) } };
  }
  if (status === 404) return isSigned(headers) ? 'absent' : 'unclear';
  if (status < 500) return 'unclear'; // the same refusal of a GET has a message
  throw refusal(status);
}

function refusal(status: number): Error {
  const name = STATUS_CODES[status] ?? 'Error';
  return Object.assign(new Error(`the answer is ${status}`), { name, $metadata: { httpStatusCode: status } });
}

function headersOf({ headers }: IncomingMessage): Readonly<Record<string, string | undefined>> {
  return headers as Record<string, string | undefined>;
}
