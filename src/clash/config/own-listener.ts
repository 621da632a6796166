import { networkInterfaces } from 'node:os';
import type { ClashConfig } from '../../config/schema.ts';
import { fieldsOf, itemsOf, type Fields } from '../../io/untrusted.ts';
import type { Content } from '../subscription/content.ts';
import { nameOf } from '../subscription/document.ts';
import { linkAddress, linkName } from '../subscription/links.ts';

const LOOPBACK = /^(?:localhost\.?|127(?:\.\d{1,3}){1,3}|0|0\.0\.0\.0|::1?|0:0:0:0:0:0:0:1|::ffff:(?:127\.\d+\.\d+\.\d+|7f\w\w:\w{1,4}))$/i;

/** Recognises the addresses on which this sidecar listens. A node there would send traffic in a
 *  loop. */
export function createOwnListener({ ports, controller, admin }: ClashConfig): (server: unknown, port: unknown) => boolean {
  const own = new Set([ports.proxy, ports.shared, controller.port, admin.port].filter((port) => port !== 0).map(String));
  return (server, port) => {
    if (!own.has(String(port)) || typeof server !== 'string') return false;
    const host = server.replace(/^\[|\]$/g, '').toLowerCase();
    const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
    return LOOPBACK.test(host) || addresses.some(({ address }) => address.toLowerCase() === host);
  };
}

interface Check {
  isOwn: ReturnType<typeof createOwnListener>;
  note: (message: string) => void;
}

/** Returns `nodes` without those that lead to this sidecar's own listeners; each of these is
 *  noted. */
export function withoutOwnNodes<T>(nodes: readonly T[], nodeOf: (entry: T) => Fields, { isOwn, note }: Check): T[] {
  return nodes.filter((entry) => {
    const node = nodeOf(entry);
    if (!isOwn(node['server'], node['port'])) return true;
    note(describe(nameOf(node)));
    return false;
  });
}

/** Does the same for content: for its links, or the nodes of its document and of that document's
 *  providers. */
export function withoutOwnListeners(content: Content, check: Check): Content {
  const { isOwn, note } = check;
  if (content.kind === 'uris') {
    const links = content.text.split('\n').filter((link) => {
      const address = linkAddress(link);
      if (address === undefined || !isOwn(address.server, address.port)) return true;
      note(describe(linkName(link)));
      return false;
    });
    return { ...content, text: links.join('\n') };
  }
  const { document } = content;
  const proxies = withoutOwnNodes(itemsOf(document['proxies']), (node) => node, check);
  const providers = Object.entries(fieldsOf(document['proxy-providers'])).map(([name, value]) => {
    const provider = fieldsOf(value);
    if (provider['payload'] === undefined) return [name, value];
    return [name, { ...provider, payload: withoutOwnNodes(itemsOf(provider['payload']), (node) => node, check) }];
  });
  return {
    ...content,
    document: { ...document, proxies, ...(providers.length === 0 ? {} : { 'proxy-providers': Object.fromEntries(providers) }) },
  };
}

function describe(name: string): string {
  return `node ${JSON.stringify(name)} is left out: its address is a port of this sidecar itself`;
}
