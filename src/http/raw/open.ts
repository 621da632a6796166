import { connect, isIP } from 'node:net';
import { connect as connectTls, type ConnectionOptions, type SecureContext } from 'node:tls';
import { LRUCache } from 'lru-cache';
import type { OpenSocket } from './raw-socket.ts';

/** How many servers' TLS sessions are kept, so that further connections can resume them. */
const MAX_SESSIONS = 100;

export const openPlain: OpenSocket = (options) => connect(options);

/** Opens TLS connections, which resume earlier sessions with the same server.
 *  @param secureContext shared by all connections: with a context each, every connection would
 *  parse some 140 certificates again, into memory that the garbage collector does not see. Absent:
 *  Node's default */
export function openSecure(secureContext: SecureContext | undefined): OpenSocket {
  const sessions = new LRUCache<string, Buffer>({ max: MAX_SESSIONS });
  return (options) => {
    const { host = '', port } = options;
    const server = `${host}:${port}`;
    const secure: ConnectionOptions = {
      ...(options as ConnectionOptions), // its type lacks `onread`, which it supports
      ALPNProtocols: ['http/1.1'],
      servername: isIP(host) === 0 ? host : undefined,
      secureContext,
      session: sessions.get(server),
    };
    const socket = connectTls(secure);
    socket.on('session', (session: Buffer) => sessions.set(server, session));
    socket.once('error', () => sessions.delete(server));
    return socket;
  };
}
