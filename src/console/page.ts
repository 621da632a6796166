import { readdir, readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import type { RequestHandler } from '../server/listen.ts';
import { splitTarget } from '../server/parse-request.ts';

/** A file of the page, with its compressed forms. */
interface Asset {
  type: string;
  bytes: Buffer;
  encodings: Map<'br' | 'gzip', Buffer>;
}

export interface Page {
  handler: RequestHandler;
  /** Whether the page has a file of this path. */
  has(this: void, path: string): boolean;
}

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
};

/** The page loads nothing from other hosts, has no inline scripts, and may not be embedded. */
const SECURITY = {
  'content-security-policy': [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
  ].join('; '),
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
};

/** Reads the output of `npm run build` into memory; it is small.
 *  @returns undefined: it has not been built */
export async function openPage(directory: string): Promise<Page | undefined> {
  const assets = new Map<string, Asset>();
  try {
    assets.set('/', await readAsset(directory, 'index.html'));
    for (const file of await readdir(join(directory, 'assets'))) {
      if (TYPES[extname(file)] !== undefined) assets.set(`/assets/${file}`, await readAsset(join(directory, 'assets'), file));
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }

  return {
    has: (path) => assets.has(path),
    handler(request, response) {
      const { path } = splitTarget(request.url ?? '');
      const asset = assets.get(path);
      if (asset === undefined) {
        response.writeHead(404, { 'content-type': 'text/plain; charset=utf-8' }).end('not found\n');
        return;
      }
      const encoding = chosenEncoding(request.headers['accept-encoding'] ?? '', asset);
      const bytes = encoding === undefined ? asset.bytes : (asset.encodings.get(encoding) ?? asset.bytes);
      response.writeHead(200, {
        ...SECURITY,
        'content-type': asset.type,
        'content-length': bytes.length,
        vary: 'accept-encoding',
        // The names of assets contain hashes of their content.
        'cache-control': path === '/' ? 'no-cache' : 'public, max-age=31536000, immutable',
        ...(encoding === undefined ? {} : { 'content-encoding': encoding }),
      });
      response.end(request.method === 'HEAD' ? undefined : bytes);
    },
  };
}

async function readAsset(directory: string, file: string): Promise<Asset> {
  const path = join(directory, file);
  const encodings = new Map<'br' | 'gzip', Buffer>();
  for (const [encoding, suffix] of [
    ['br', '.br'],
    ['gzip', '.gz'],
  ] as const) {
    const bytes = await readFile(path + suffix).catch(() => undefined); // not every file has a compressed form
    if (bytes !== undefined) encodings.set(encoding, bytes);
  }
  return { type: TYPES[extname(file)] ?? 'application/octet-stream', bytes: await readFile(path), encodings };
}

function chosenEncoding(accepted: string, { encodings }: Asset): 'br' | 'gzip' | undefined {
  const tokens = accepted.split(',').map((token) => token.trim().split(';', 1)[0]);
  return (['br', 'gzip'] as const).find((encoding) => tokens.includes(encoding) && encodings.has(encoding));
}
