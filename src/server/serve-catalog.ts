import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Caller } from '../oci/caller.ts';
import { OciError } from '../oci/error.ts';
import { isRepository } from '../oci/reference.ts';
import { signalOf } from './exchange.ts';
import type { HostedRegistry } from './hosted-registry.ts';
import { splitTarget } from './parse-request.ts';
import { API_VERSION } from './send-error.ts';

/** The most repositories of one page. */
const MAX_PAGE = 10_000;

interface CatalogOptions {
  /** By the first component of their repositories. */
  hosted: ReadonlyMap<string, HostedRegistry>;
  caller: Caller;
}

/** Answers GET and HEAD of /v2/_catalog with the hosted repositories that the caller may pull from
 *  (distribution specification 1.1 leaves it to implementations).
 *  @throws OciError PAGINATION_NUMBER_INVALID, UNSUPPORTED */
export async function serveCatalog(request: IncomingMessage, response: ServerResponse, options: CatalogOptions): Promise<void> {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD');
    throw new OciError('UNSUPPORTED', `${request.method} is not supported here`);
  }
  const { n, last } = parsePage(new URLSearchParams(splitTarget(request.url ?? '').query));
  const names = await listNames(options, { count: n + 1, last, signal: signalOf(response) });
  const page = names.slice(0, n);
  const headers = ['Content-Type', 'application/json; charset=utf-8'];
  if (names.length > n) headers.push('Link', `</v2/_catalog?n=${n}&last=${encodeURIComponent(page.at(-1) ?? '')}>; rel="next"`);
  const body = Buffer.from(JSON.stringify({ repositories: page }));
  response
    .writeHead(200, [...API_VERSION, ...headers, 'Content-Length', String(body.length)])
    .end(request.method === 'HEAD' ? undefined : body);
}

function parsePage(query: URLSearchParams): { n: number; last: string } {
  const count = query.get('n') ?? String(MAX_PAGE);
  if (!/^[1-9]\d{0,8}$/.test(count)) {
    throw new OciError('PAGINATION_NUMBER_INVALID', `n is not a count of repositories: ${JSON.stringify(count.slice(0, 160))}`);
  }
  return { n: Math.min(Number(count), MAX_PAGE), last: query.get('last') ?? '' };
}

/** The first `count` repositories after `last`, with their first component. */
async function listNames(
  { hosted, caller }: CatalogOptions,
  { count, last, signal }: { count: number; last: string; signal: AbortSignal },
): Promise<string[]> {
  const names: string[] = [];
  for (const [name, { registry, isAllowed }] of [...hosted].sort(([one], [other]) => (one < other ? -1 : 1))) {
    if (last !== '' && name < (last.split('/', 1)[0] ?? '')) continue;
    const rest = last.startsWith(`${name}/`) ? last.slice(name.length + 1) : '';
    for await (const repository of registry.repositories({ signal, ...(isRepository(rest) ? { last: rest } : {}) })) {
      if (names.length === count) return names;
      if (isAllowed(caller, 'pull', repository)) names.push(`${name}/${repository}`);
    }
  }
  return names;
}
