import { isInternal } from './addresses.ts';

/** Why a redirect is not followed. */
export type RedirectProblem = 'too-many' | 'no-url' | 'scheme' | 'internal';

/** The message may contain parts of a secret URL: use `problem` where those must not be shown. */
export class RedirectError extends Error {
  override readonly name = 'RedirectError';
  readonly problem: RedirectProblem;
  /** The target of the redirect. */
  readonly target: URL | undefined;
  constructor(problem: RedirectProblem, message: string, target?: URL) {
    super(message);
    this.problem = problem;
    this.target = target;
  }
}

export interface FollowOptions<Response> {
  /** @param route `own`: the URL may be internal. `outside`: connect only to external addresses,
   *  whatever the name resolves to. */
  send(this: void, url: URL, route: Route): Promise<Response>;
  /** Frees a response that was not the last. */
  discard(this: void, response: Response): void;
  /** Whether a URL may be internal. */
  mayBeInternal(this: void, url: URL): boolean | Promise<boolean>;
}
export type Route = 'own' | 'outside';

interface Head {
  statusCode: number;
  headers: Record<string, string | string[] | undefined>;
}

export const MAX_REDIRECTS = 5;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/** Sends a request and follows redirects: at most five, none from https to http, none to an
 *  internal address unless it is allowed (promise 12).
 *  @returns the first response that is no redirect, and where it came from
 *  @throws RedirectError; what `send` throws */
export async function followRedirects<Response extends Head>(
  first: URL,
  { send, discard, mayBeInternal }: FollowOptions<Response>,
): Promise<{ response: Response; url: URL }> {
  let url = first;
  for (let redirects = 0; ; redirects++) {
    const response = await send(url, await routeTo(url, mayBeInternal));
    const next = targetOf(url, response);
    if (next === undefined) return { response, url };
    discard(response);
    if (next === 'no-url') throw new RedirectError('no-url', `${url.host} redirects to something that is not a URL`);
    if (redirects === MAX_REDIRECTS) throw new RedirectError('too-many', `${first.host} redirects more than ${MAX_REDIRECTS} times`);
    if (next.protocol !== 'https:' && (url.protocol === 'https:' || next.protocol !== 'http:')) {
      const to = `${next.protocol}//${next.host}`;
      throw new RedirectError('scheme', `${url.host} redirects from ${url.protocol.slice(0, -1)} to ${to}, which is not followed`, next);
    }
    url = next;
  }
}

/** The route by which `url` may be reached. @throws RedirectError: it may not be reached at all */
async function routeTo(url: URL, mayBeInternal: FollowOptions<never>['mayBeInternal']): Promise<Route> {
  if (await mayBeInternal(url)) return 'own';
  if (!isInternal(url.hostname)) return 'outside';
  throw new RedirectError('internal', `${url.host} is an internal address, and requests to internal addresses are not allowed`, url);
}

function targetOf(url: URL, { statusCode, headers: { location } }: Head): URL | 'no-url' | undefined {
  if (!REDIRECTS.has(statusCode) || typeof location !== 'string') return undefined;
  return URL.parse(location, url) ?? 'no-url';
}
