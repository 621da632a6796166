import { json } from 'node:stream/consumers';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { fieldsOf } from '../io/untrusted.ts';
import { ClashError } from './subscription/document.ts';
import type { Clash } from './supervise.ts';

const LOOPBACK = /^(?:127\.|::1$|::ffff:127\.)/;
const MAX_BODY = 4096;

/** POST /node { node }: uses a node from now on; null: the fastest one, as before. Only for
 *  processes of the same pod, such as the registry, whose users have logged in. Clients that may
 *  only read metrics must not select a node.
 *  @returns a handler for that request, and undefined for any other */
export function chooseNodeHandler({ choose }: Pick<Clash, 'choose'>) {
  return (path: string, { method }: IncomingMessage) => {
    if (path !== '/node' || method !== 'POST') return undefined;
    return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      const answer = (status: number, body: string) =>
        void response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end(body);
      if (!LOOPBACK.test(request.socket.remoteAddress ?? '') || request.headers.origin !== undefined) {
        return answer(403, 'only a process of the same pod may choose a node\n');
      }
      if (!(Number(request.headers['content-length'] ?? Infinity) <= MAX_BODY)) return answer(400, 'expected a short JSON body\n');
      const { node } = fieldsOf(await json(request).catch(() => undefined));
      if (typeof node !== 'string' && node !== null) return answer(400, 'expected { "node": <name or null> }\n');
      try {
        await choose(node ?? undefined);
        return answer(200, '{}\n');
      } catch (error) {
        if (error instanceof ClashError) return answer(400, `${error.message}\n`);
        throw error;
      }
    };
  };
}
