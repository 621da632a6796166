import { request, STATUS_CODES, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as requestSecurely } from 'node:https';
import type { StoredObject } from '../store.ts';
import type { Connections } from './client.ts';
import { clockOffset, foreignness } from './answers.ts';
import { ForeignAnswer, isSigned } from './errors.ts';

/** What a HEAD's answer proves. It has no body in which S3 could say more: `unclear` is to be asked again by GET. */
export type HeadAnswer = { found: StoredObject } | 'absent' | 'unclear';

/** Asks for an object by HEAD at a URL that is signed already. The SDK's way signs each request anew and leads through all of its middleware, which
 *  keeps the event loop busy for eight times as long.
 *  @throws ForeignAnswer; Error: no answer, or one that is no success, with its status where the SDK's errors have it */
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
      // A refusal concerns the signature: a request that is signed now would not meet it.
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

/** @throws ForeignAnswer; Error: a refusal without words */
export function readHead(status: number, headers: Readonly<Record<string, string | undefined>>): HeadAnswer {
  const foreign = foreignness({ command: 'HeadObjectCommand', status, headers });
  if (foreign !== undefined) throw new ForeignAnswer(status, foreign);
  if (status === 200) {
    const { 'content-length': length, 'last-modified': modified, 'content-encoding': encoding } = headers;
    if (length === undefined || modified === undefined || (encoding !== undefined && encoding !== 'identity')) return 'unclear';
    return { found: { size: Number(length), modified: new Date(modified) } };
  }
  if (status === 404) return isSigned(headers) ? 'absent' : 'unclear';
  if (status < 500) return 'unclear'; // the same refusal of a GET has words
  throw refusal(status);
}

function refusal(status: number): Error {
  const name = STATUS_CODES[status] ?? 'Error';
  return Object.assign(new Error(`the answer is ${status}`), { name, $metadata: { httpStatusCode: status } });
}

function headersOf({ headers }: IncomingMessage): Readonly<Record<string, string | undefined>> {
  return headers as Record<string, string | undefined>;
}
