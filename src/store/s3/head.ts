import { request, STATUS_CODES, type Agent, type RequestOptions } from 'node:http';
import { request as requestSecurely, type Agent as SecureAgent } from 'node:https';
import type { StoredObject } from '../store.ts';

export interface HeadOptions {
  /** For `http:`. */
  agent: Agent;
  /** For `https:`. */
  secureAgent: SecureAgent;
  signal: AbortSignal;
}

/** Asks for an object by HEAD at a URL that is signed already. The SDK's way signs each request anew and leads through all of its middleware, which
 *  keeps the event loop busy for eight times as long.
 *  @throws Error: no answer; an answer that is no success, with its status where the SDK's errors have it */
export function headObject(url: string, { agent, secureAgent, signal }: HeadOptions): Promise<StoredObject> {
  const { promise, resolve, reject } = Promise.withResolvers<StoredObject>();
  const options: RequestOptions = { method: 'HEAD', signal };
  const asked = url.startsWith('https:') ? requestSecurely(url, { ...options, agent: secureAgent }) : request(url, { ...options, agent });
  asked.on('response', (answer) => {
    const { statusCode: status = 0, headers } = answer;
    answer.resume(); // its connection is free again
    if (status === 200) resolve({ size: Number(headers['content-length'] ?? 0), modified: new Date(headers['last-modified'] ?? 0) });
    else reject(refusal(status));
  });
  asked.on('error', reject);
  asked.end();
  return promise;
}

function refusal(status: number): Error {
  const name = STATUS_CODES[status] ?? 'Error';
  return Object.assign(new Error(`the answer is ${status}`), { name, $metadata: { httpStatusCode: status } });
}
