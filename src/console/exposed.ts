import type { RequestHandler } from '../server/listen.ts';
import { splitTarget } from '../server/parse-request.ts';
import { REPLICA_HEADER, SESSION_HEADER } from './replicas.ts';
import { readToken } from './session-cookie.ts';
import type { Session } from './sessions.ts';

export interface ExposedOptions {
  /** The handler of a path; undefined: the path does not belong to the console. */
  at(this: void, path: string): RequestHandler | undefined;
  findSession(this: void, token: string, alone: boolean): Promise<Session | undefined>;
}

/** The console's listener for users outside the cluster. Reading requires a login too, except for
 *  the page itself, which contains no data. Requests from replicas are not accepted here. */
export function exposedConsole({ at, findSession }: ExposedOptions): RequestHandler {
  return async (request, response) => {
    delete request.headers[REPLICA_HEADER];
    delete request.headers[SESSION_HEADER];
    const { path } = splitTarget(request.url ?? '');
    const handler = at(path);
    if (handler === undefined) {
      response.writeHead(404, { 'content-type': 'text/plain; charset=utf-8' }).end('not found\n');
      return;
    }
    const isOpen = path === '/api/session' || !path.startsWith('/api');
    const token = isOpen ? undefined : readToken(request);
    if (isOpen || (token !== undefined && (await findSession(token, false)) !== undefined)) return handler(request, response);
    response.shouldKeepAlive = false; // its body, if any, is not needed
    response.writeHead(401, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' });
    response.end(JSON.stringify({ error: { code: 'UNAUTHORIZED', message: 'log in first' } }));
  };
}
