import { Cron } from 'croner';
import { z } from 'zod';

// The value types of the configuration. Each parses the user's text into the program's units:
// milliseconds, bytes, a host and a port.

const MILLISECONDS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const BYTES = { '': 1, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 } as const;
const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/;
const DURATION_FORM = 'a duration such as 300ms, 10s, 5m, 24h or 30d';
const SIZE_FORM = 'a size such as 64MiB, 100GiB, or a number of bytes';
const SIZE = /^(\d+(?:\.\d+)?)(B|KiB|MiB|GiB|TiB|)$/;

/** `300ms`, `5m`, `24h`, `30d`, or 0; parsed to milliseconds. */
export const duration = z
  .union([z.literal([0, '0']), z.string().regex(DURATION, DURATION_FORM)], { error: DURATION_FORM })
  .transform((value) => {
    const [, count, unit] = DURATION.exec(String(value)) ?? [undefined, '0', 'ms'];
    return Number(count) * MILLISECONDS[unit as keyof typeof MILLISECONDS];
  })
  .meta({ title: 'duration', description: '`300ms`, `10s`, `5m`, `24h`, `30d`, or 0.' });

/** `64MiB`, `100GiB`, or a number of bytes; parsed to bytes. */
export const size = z
  .union([z.number().int().min(0, SIZE_FORM), z.string().regex(SIZE, SIZE_FORM)], { error: SIZE_FORM })
  .transform((value) => {
    const [, count, unit] = SIZE.exec(String(value)) ?? [undefined, '0', ''];
    return Math.round(Number(count) * BYTES[unit as keyof typeof BYTES]);
  })
  .meta({ title: 'size', description: '`64MiB`, `100GiB`, or a number of bytes.' });

export interface Address {
  /** An IP address or a name; without brackets. */
  host: string;
  port: number;
}

const ADDRESS = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/;

/** `127.0.0.1:5000`, `[::]:5000`; port 0 takes a free one. */
export const address = z
  .string({ error: 'an address such as 127.0.0.1:5000 or [::]:5000' })
  .refine((text) => Number(ADDRESS.exec(text)?.[2] ?? Infinity) <= 65_535, 'an address such as 127.0.0.1:5000 or [::]:5000')
  .transform((text): Address => {
    const at = text.lastIndexOf(':');
    return { host: text.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(text.slice(at + 1)) };
  })
  .meta({ title: 'address', description: '`127.0.0.1:5000`, `[::]:5000`; port 0 takes a free one.' });

/** An http or https URL, kept exactly as written: a trailing slash may be significant. */
export const exactUrl = z
  .string({ error: 'a URL that starts with http:// or https://' })
  .refine((text) => hasProtocol(text, 'http:', 'https:'), 'a URL that starts with http:// or https://')
  .meta({ title: 'URL', description: 'A URL that starts with `http://` or `https://`.' });

/** The URL of a server that listens on this address, as seen from its own machine. */
export function urlOf({ host, port }: Address): string {
  const reachable = { '0.0.0.0': '127.0.0.1', '::': '::1' }[host] ?? host;
  return `http://${reachable.includes(':') ? `[${reachable}]` : reachable}:${port}`;
}

/** An http or https URL, returned without a trailing slash. */
export const httpUrl = exactUrl
  .refine(
    (text) => !URL.canParse(text) || new URL(text).username + new URL(text).password === '',
    'a URL without a user and password in it',
  )
  .transform((text) => text.replace(/\/+$/, ''))
  .meta({ title: 'URL', description: 'A URL that starts with `http://` or `https://`.' });

/** `direct`, or the URL of an HTTP or SOCKS5 proxy. Names are always resolved by the proxy (promise
 *  16). */
export const proxy = z
  .string({ error: 'direct, or a proxy such as http://127.0.0.1:7890 or socks5h://127.0.0.1:7891' })
  .refine(
    (text) => text === 'direct' || hasProtocol(text, 'http:', 'https:', 'socks5:', 'socks5h:'),
    'direct, or a proxy such as http://127.0.0.1:7890 or socks5h://127.0.0.1:7891',
  )
  .meta({ title: 'proxy', description: '`direct`, or the URL of a proxy: `http://127.0.0.1:7890`, `socks5h://127.0.0.1:7891`.' });

export const text = z.string({ error: 'a text' }).min(1, 'a text that is not empty');
export const port = z.int({ error: 'a port number' }).min(0, 'a port number').max(65_535, 'a port number');

/** A secret, either given directly or in a file that is read again when it changes. */
export interface SecretSource {
  value?: string | undefined;
  file?: string | undefined;
}

function hasProtocol(text: string, ...protocols: string[]): boolean {
  return URL.canParse(text) && protocols.includes(new URL(text).protocol);
}

const SCHEDULE_FORM = 'five fields as in cron that come due at some time, such as 17 3 * * *';
export const schedule = z.string(SCHEDULE_FORM).refine(comesDue, SCHEDULE_FORM);

function comesDue(pattern: string): boolean {
  try {
    return new Cron(pattern, { mode: '5-part', paused: true }).nextRun() !== null;
  } catch {
    return false;
  }
}
