import { isIPv6 } from 'node:net';

/** The location of a registry, parsed from keys of docker configs and names of images as Go's
 *  net/url does. */
export interface Location {
  /** With the port, as written: `registry.example.com:5000`, `*.example.com`. */
  host: string;
  /** The decoded path: begins with a slash, or is empty. */
  path: string;
}

/** Control characters and spaces are an error, as in Go. */
// oxlint-disable-next-line no-control-regex -- the characters that net/url refuses
const CONTROL = /[\u0000-\u001f\u007f]/;
/** The ASCII characters that net/url accepts in a host (RFC 3986, section 3.2.2, and a few
 *  more). */
const HOST = /^(?:[A-Za-z0-9\-_.~!$&'()*+,;=:[\]<>"]|[^\u0000-\u007f])*$/; // oxlint-disable-line no-control-regex -- all of ASCII
const USER = /^[A-Za-z0-9\-._:~!$&'()*+,;=%@]*$/;
const PORT = /^(?::\d*)?$/;

/** Host and path as in Go's `url.Parse("https://" + text)`.
 *  @returns undefined if the parser fails */
export function parseLocation(text: string): Location | undefined {
  if (CONTROL.test(text)) return undefined;
  const [withoutFragment = ''] = text.split('#', 1);
  const [withoutQuery = ''] = withoutFragment.split('?', 1);
  const slash = withoutQuery.indexOf('/');
  const authority = slash === -1 ? withoutQuery : withoutQuery.slice(0, slash);
  const at = authority.lastIndexOf('@');
  if (at !== -1 && !USER.test(authority.slice(0, at))) return undefined;
  const host = authority.slice(at + 1);
  const path = decodePath(slash === -1 ? '' : withoutQuery.slice(slash));
  return isHost(host) && path !== undefined ? { host, path } : undefined;
}

function isHost(host: string): boolean {
  if (!HOST.test(host) || host.lastIndexOf('[') > 0) return false;
  if (host.startsWith('[')) {
    const end = host.lastIndexOf(']');
    return isIPv6(host.slice(1, end)) && PORT.test(host.slice(end + 1));
  }
  const colon = host.lastIndexOf(':');
  return colon === -1 || PORT.test(host.slice(colon));
}

function decodePath(path: string): string | undefined {
  if (/%(?![0-9A-Fa-f]{2})/.test(path)) return undefined;
  if (!path.includes('%')) return path;
  return Buffer.from(
    path.replaceAll(/%([0-9A-Fa-f]{2})|[^%]+/g, (part, hex?: string) =>
      hex === undefined ? toLatin1(part) : String.fromCharCode(parseInt(hex, 16)),
    ),
    'latin1',
  ).toString();
}

/** The UTF-8 bytes of a text, each as a character. */
function toLatin1(text: string): string {
  return Buffer.from(text).toString('latin1');
}

/** The labels of a host and its port, after Go's net.SplitHostPort: the port is empty if there is
 *  none, or if it is ambiguous. */
export function splitHost(host: string): { labels: string[]; port: string } {
  const bracketed = /^\[([^[\]]*)\]:([^:[\]]*)$/.exec(host);
  const plain = /^([^:[\]]*):([^:[\]]*)$/.exec(host);
  const [, name = host, port = ''] = bracketed ?? plain ?? [];
  return { labels: name.split('.'), port };
}
