import { lookup, promises, type LookupAddress, type LookupOptions } from 'node:dns';
import { BlockList, isIP } from 'node:net';
import { OciError } from '../oci/error.ts';

/** Destinations that no outside server may redirect this program to: this machine, its networks and
 *  those of the cluster, the metadata services of clouds, and addresses of more than one host.
 *  198.18.0.0/15 is left out on purpose: clash answers DNS queries with such addresses (fake-ip).
 *  Sources: the IANA registries of special-purpose addresses; Azure's "What is IP address
 *  168.63.129.16?". */
export const INTERNAL_NETWORKS: readonly string[] = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10', // carrier-grade NAT; Alibaba Cloud's metadata service is 100.100.100.200
  '127.0.0.0/8',
  '168.63.129.16/32', // Azure's wire server
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24', // Oracle Cloud's metadata service is 192.0.0.192
  '192.168.0.0/16',
  '224.0.0.0/3', // multicast, reserved, broadcast
  '::/127',
  '64:ff9b:1::/48', // NAT64 prefixes for local use (RFC 8215)
  '100::/64', // discarded (RFC 6666)
  'fc00::/7',
  'fe80::/10',
  'fec0::/10', // site-local, deprecated
  'ff00::/8',
];

/** Names that mean an internal address wherever they are resolved. */
const INTERNAL_SUFFIXES = ['localhost', 'local', 'internal', 'svc', 'home.arpa'];

const internal = new BlockList();
for (const network of INTERNAL_NETWORKS) {
  const [address = '', bits] = network.split('/');
  internal.addSubnet(address, Number(bits), address.includes(':') ? 'ipv6' : 'ipv4');
}

/** True for an address of this machine or of an internal network, in any form that a URL or a
 *  socket accepts, and for names that always resolve to one. A text that is not a host counts as
 *  internal, so nothing is sent there. */
export function isInternal(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '').replace(/%.*$/, ''); // a zone, as in fe80::1%eth0
  if (bare.includes(':')) return isIP(bare) !== 6 || isInternalV6(bare);
  // URLs accept 127.1, 0x7f000001, 2130706433, 0177.0.0.1 and full-width digits; the URL parser
  // knows them all.
  const url = URL.parse(`http://${bare}/`);
  if (url === null || url.username !== '' || url.port !== '' || url.pathname !== '/') return true;
  const name = url.hostname.replace(/\.$/, '');
  if (isIP(name) === 4) return internal.check(name, 'ipv4');
  return !name.includes('.') || INTERNAL_SUFFIXES.some((suffix) => name.endsWith(`.${suffix}`));
}

function isInternalV6(address: string): boolean {
  return internal.check(address, 'ipv6') || embeddedV4(groupsOf(address)).some((v4) => internal.check(v4, 'ipv4'));
}

/** The IPv4 addresses to which packets for an IPv6 address may be forwarded. */
function embeddedV4(groups: readonly number[]): string[] {
  const [first = 0, second = 0, third = 0, fourth = 0, fifth = 0, sixth = 0, seventh = 0, eighth = 0] = groups;
  const found: string[] = [];
  const zeros = (to: number) => groups.slice(0, to).every((group) => group === 0);
  const last = v4(seventh, eighth);
  if (zeros(6)) found.push(last); // IPv4-compatible (RFC 4291 §2.5.5.1)
  if (zeros(5) && sixth === 0xffff) found.push(last); // IPv4-mapped (RFC 4291 §2.5.5.2)
  if (zeros(4) && fifth === 0xffff && sixth === 0) found.push(last); // IPv4-translated (RFC 2765)
  if (first === 0x64 && second === 0xff9b && third === 0 && fourth === 0 && fifth === 0 && sixth === 0) found.push(last); // NAT64 (RFC 6052)
  if (first === 0x2002) found.push(v4(second, third)); // 6to4 (RFC 3056)
  if (first === 0x2001 && second === 0) found.push(v4(third, fourth), v4(seventh ^ 0xffff, eighth ^ 0xffff)); // Teredo (RFC 4380): server, client
  if ((fifth & ~0x0200) === 0 && sixth === 0x5efe) found.push(last); // ISATAP (RFC 5214)
  return found;
}

function v4(high: number, low: number): string {
  return [high >> 8, high & 0xff, low >> 8, low & 0xff].join('.');
}

/** The eight 16-bit groups of an IPv6 address that `isIP` accepts. */
function groupsOf(address: string): number[] {
  const canonical = new URL(`http://[${address}]/`).hostname.slice(1, -1); // hexadecimal groups alone, no dotted tail
  const [head = '', tail] = canonical.split('::');
  const parse = (part: string) => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16)));
  if (tail === undefined) return parse(head);
  const [before, after] = [parse(head), parse(tail)];
  return [...before, ...Array.from({ length: 8 - before.length - after.length }, () => 0), ...after];
}

/** True for a host whose addresses, as this machine resolves its name, are all internal. */
export async function resolvesInside(host: string): Promise<boolean> {
  if (isInternal(host)) return true;
  const addresses = await promises.lookup(host, { all: true }).catch(() => []); // a name that does not resolve is not internal
  return addresses.length > 0 && addresses.every(({ address }) => isInternal(address));
}

type Callback = (error: NodeJS.ErrnoException | null, address: string | LookupAddress[], family?: number) => void;

/** A `lookup` for sockets that returns no internal addresses, so that the name in a redirect cannot
 *  lead to an internal network through DNS. */
export function lookupExternal(hostname: string, options: LookupOptions, callback: Callback): void {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) return callback(error, []);
    const external = addresses.filter(({ address }) => !isInternal(address));
    const [first] = external;
    if (first === undefined) {
      const cause = new OciError('DENIED', `${hostname} has an internal address, and redirects to internal addresses are not allowed`, {
        origin: 'upstream',
      });
      return callback(cause, []);
    }
    if (options.all === true) callback(null, external);
    else callback(null, first.address, first.family);
  });
}
