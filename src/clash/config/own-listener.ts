import { networkInterfaces } from 'node:os';
import type { ClashConfig } from '../../config/schema.ts';
import type { Fields } from '../../io/untrusted.ts';

const LOOPBACK = /^(?:localhost\.?|127(?:\.\d{1,3}){1,3}|0|0\.0\.0\.0|::1?|0:0:0:0:0:0:0:1|::ffff:(?:127\.\d+\.\d+\.\d+|7f\w\w:\w{1,4}))$/i;

/** Tells addresses at which this sidecar itself listens. A node there would send traffic round in a circle. */
export function createOwnListener({ ports, controller, admin }: ClashConfig): (server: unknown, port: unknown) => boolean {
  const own = new Set([ports.proxy, ports.shared, controller.port, admin.port].filter((port) => port !== 0).map(String));
  return (server, port) => {
    if (!own.has(String(port)) || typeof server !== 'string') return false;
    const host = server.replace(/^\[|\]$/g, '').toLowerCase();
    const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
    return LOOPBACK.test(host) || addresses.some(({ address }) => address.toLowerCase() === host);
  };
}

/** The same for a node of a document. */
export function isOwnListener(node: Fields, own: ClashConfig): boolean {
  return createOwnListener(own)(node['server'], node['port']);
}
