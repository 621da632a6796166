import { lookup, promises, type LookupAddress, type LookupOptions } from 'node:dns';
import { BlockList, isIP } from 'node:net';
import { OciError } from '../oci/error.ts';

// Where no upstream may send this program, unless it is there itself: loopback, link-local (cloud metadata among them) and
// private networks. 198.18/15 is missing on purpose: clash answers DNS with addresses of it.
const internal = new BlockList();
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
] as const) {
  internal.addSubnet(network, prefix, 'ipv4');
  for (const wrapped of ['::ffff:', '64:ff9b::']) internal.addSubnet(`${wrapped}${network}`, 96 + prefix, 'ipv6');
}
internal.addAddress('::', 'ipv6');
internal.addAddress('::1', 'ipv6');
internal.addSubnet('fc00::', 7, 'ipv6');
internal.addSubnet('fe80::', 10, 'ipv6');

/** True for an address, or a name that always means one, of this machine or of an internal network. */
export function isInternal(host: string): boolean {
  const bare = host.replace(/^\[|\]$|\.$/g, '');
  const family = isIP(bare);
  if (family === 0) return bare === 'localhost' || bare.endsWith('.localhost');
  return internal.check(bare, family === 6 ? 'ipv6' : 'ipv4');
}

/** True for a host whose addresses, as this machine resolves its name, are all internal. */
export async function resolvesInside(host: string): Promise<boolean> {
  if (isInternal(host)) return true;
  const addresses = await promises.lookup(host, { all: true }).catch(() => []); // a name that does not resolve is nowhere
  return addresses.length > 0 && addresses.every(({ address }) => isInternal(address));
}

type Callback = (error: NodeJS.ErrnoException | null, address: string | LookupAddress[], family?: number) => void;

/** A `lookup` for sockets that finds no internal addresses: what a redirect names may not lead inside by way of DNS. */
export function lookupExternal(hostname: string, options: LookupOptions, callback: Callback): void {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) return callback(error, []);
    const external = addresses.filter(({ address }) => !isInternal(address));
    const [first] = external;
    if (first === undefined) {
      const cause = new OciError('DENIED', `${hostname} has an internal address, and nothing may be redirected there`, {
        origin: 'upstream',
      });
      return callback(cause, []);
    }
    if (options.all === true) callback(null, external);
    else callback(null, first.address, first.family);
  });
}
