import { connect, isIP } from 'node:net';
import { connect as connectTls, type ConnectionOptions, type SecureContext } from 'node:tls';
import { LRUCache } from 'lru-cache';
import type { OpenSocket } from './raw-socket.ts';

/** Servers whose TLS sessions are kept, so that further connections need no certificates. */
const MAX_SESSIONS = 100;

export const openPlain: OpenSocket = (options) => connect(options);

/** Opens connections of TLS, which resume earlier ones to the same server.
 *  @param secureContext of all connections: with one each, every connection would parse some 140 certificates again, into memory that
 *  the garbage collector does not see. Absent: Node's default */
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
