import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import { json, text } from 'node:stream/consumers';

/** The API server without kubectl, whose start takes longer than most requests. */
export interface Api {
  /** Returns the object of the response. `path` begins with /api. @throws ApiError: the status is
   *  not 2xx */
  <T = unknown>(method: 'GET' | 'POST' | 'PATCH' | 'DELETE', path: string, body?: unknown): Promise<T>;
}

/** The API server refused a request. */
export class ApiError extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Sends requests as the admin. `url`: https://HOST:PORT; `ca`: the trusted authorities, PEM. */
export function createApi({ url, ca, token }: { url: string; ca: string; token: string }): Api {
  const agent = new Agent({ ca, keepAlive: true, timeout: 30_000 });
  return async <T>(method: string, path: string, body?: unknown): Promise<T> => {
    const type = method === 'PATCH' ? 'application/strategic-merge-patch+json' : 'application/json';
    const headers = { authorization: `Bearer ${token}`, accept: 'application/json', 'content-type': type };
    const outgoing = request(new URL(path, url), { method, agent, headers });
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    const status = response.statusCode ?? 0;
    if (status >= 300) throw new ApiError(status, `${method} ${path}: ${status} ${await text(response)}`);
    return (response.headers['content-type']?.startsWith('application/json') === true ? await json(response) : await text(response)) as T;
  };
}
