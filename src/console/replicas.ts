import type { Dispatcher } from 'undici';
import type { z } from 'zod';
import { isOciError, OciError } from '../oci/error.ts';

/** The console's requests to the other replicas of this registry. */
export interface OtherReplicas {
  /** Asks every other replica for its part of a response.
   *  @param cookie the cookie of the user who sent the request */
  ask<Schema extends z.ZodType>(this: void, path: string, schema: Schema, options?: AskOptions): Promise<Answers<z.output<Schema>>>;
  /** Addresses of the other replicas. */
  addresses(this: void): readonly string[];
  close(this: void): Promise<void>;
}

export interface AskOptions {
  method?: 'GET' | 'POST' | 'DELETE';
  body?: unknown;
  /** The token of a session; each replica checks it itself. */
  token?: string | undefined;
  signal?: AbortSignal;
}

export interface Answers<Answer> {
  answers: { address: string; answer: Answer }[];
  unreachable: { address: string; problem: string }[];
}

export interface OtherReplicasOptions {
  /** The current addresses of the other replicas. */
  others(this: void): readonly string[];
  /** The port of registry.admin, the same on all replicas. */
  port: number;
}

/** Marks a request from another replica: the response covers this replica alone. */
export const REPLICA_HEADER = 'x-kube-registry-replica';
export const SESSION_HEADER = 'x-kube-registry-session';

const TIMEOUT_MS = 2000;
const CONNECT_TIMEOUT_MS = 800;
/** Bytes of an answer. */
const MAX_ANSWER = 4 * 2 ** 20;

/** If a replica does not answer in time, or its answer is invalid, the response names it; the
 *  answers of the others are used. */
export function createOtherReplicas({ others, port }: OtherReplicasOptions): OtherReplicas {
  let dispatcher: Promise<Dispatcher> | undefined;

  async function askOne<Schema extends z.ZodType>(
    address: string,
    path: string,
    schema: Schema,
    options: AskOptions,
  ): Promise<z.output<Schema>> {
    const { method = 'GET', body, token, signal } = options;
    const host = address.includes(':') ? `[${address}]` : address;
    const limit = AbortSignal.timeout(TIMEOUT_MS);
    dispatcher ??= openDispatcher();
    const response = await (
      await dispatcher
    ).request({
      origin: `http://${host}:${port}`,
      path,
      method,
      headers: {
        [REPLICA_HEADER]: '1',
        'x-kube-registry-console': '1',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(token === undefined ? {} : { [SESSION_HEADER]: token }),
      },
      signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const answer: unknown = await response.body.json();
    if (response.statusCode !== 200) throw new OciError('UNAVAILABLE', `it answers ${response.statusCode}`);
    const parsed = schema.safeParse(answer);
    if (!parsed.success) throw new OciError('UNAVAILABLE', 'its response has an unexpected form; it may be another version');
    return parsed.data;
  }

  return {
    addresses: others,
    async ask(path, schema, options = {}) {
      const found: Answers<z.output<typeof schema>> = { answers: [], unreachable: [] };
      await Promise.all(
        others().map(async (address) => {
          try {
            found.answers.push({ address, answer: await askOne(address, path, schema, options) });
          } catch (error) {
            found.unreachable.push({ address, problem: problemOf(error) });
          }
        }),
      );
      return found;
    },
    close: async () => (await dispatcher)?.close(),
  };
}

async function openDispatcher(): Promise<Dispatcher> {
  const { Agent } = await import('undici');
  return new Agent({ connect: { timeout: CONNECT_TIMEOUT_MS }, connections: 4, maxResponseSize: MAX_ANSWER });
}

function problemOf(error: unknown): string {
  if (isOciError(error)) return error.message;
  const { name, code, message } = error as NodeJS.ErrnoException;
  return name === 'TimeoutError' ? `no answer within ${TIMEOUT_MS / 1000} s` : (code ?? message);
}
