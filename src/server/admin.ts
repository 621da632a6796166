import type { ServerResponse } from 'node:http';
import type { RequestHandler } from './listen.ts';
import { splitTarget } from './parse-request.ts';
import { renderStatusPage, type Status } from './status-page.ts';

export interface AdminOptions {
  /** Whether this process is ready. It must depend on nothing outside the process: otherwise an
   *  outage of S3 or of an upstream would empty the Service (promise 11). */
  ready(): boolean;
  /** The Prometheus text format. */
  metrics(): Promise<string>;
  /** The status: as JSON at /status, and as a page at /. */
  status?: () => Promise<Status>;
  /** The console: its page at / instead of the status page, and its API. Undefined for other
   *  paths. Never called for /livez, /readyz, /metrics and /status. */
  consoleAt?: (path: string) => Promise<RequestHandler | undefined>;
}

const OWN_PATHS: ReadonlySet<string> = new Set(['/livez', '/readyz', '/metrics', '/status']);
const TEXT = 'text/plain; charset=utf-8';

/** /livez, /readyz, /metrics, /status and the status page. */
export function serveAdmin(options: AdminOptions): RequestHandler {
  const { status = () => Promise.resolve({}) } = options;
  return async (request, response) => {
    const { method, url = '/' } = request;
    const head = method === 'HEAD';
    const { path } = splitTarget(url);
    const console = OWN_PATHS.has(path) ? undefined : await options.consoleAt?.(path);
    if (console !== undefined) return console(request, response);
    if (method !== 'GET' && !head) {
      response.shouldKeepAlive = false;
      send(response, { status: 405, body: 'only GET and HEAD\n', head, headers: { allow: 'GET, HEAD' } });
      return;
    }
    switch (path) {
      case '/livez':
        return send(response, { body: 'ok\n', head });
      case '/readyz':
        return options.ready() ? send(response, { body: 'ok\n', head }) : send(response, { status: 503, body: 'not ready\n', head });
      case '/metrics':
        return send(response, { body: await options.metrics(), type: 'text/plain; version=0.0.4; charset=utf-8', head });
      case '/status':
        return send(response, { body: `${JSON.stringify(await status(), undefined, 2)}\n`, type: 'application/json', head });
      case '/':
        return send(response, { body: renderStatusPage(await status()), type: 'text/html; charset=utf-8', head, headers: PAGE_HEADERS });
      default:
        return send(response, { status: 404, body: 'there are /livez, /readyz, /metrics, /status and /\n', head });
    }
  };
}

const PAGE_HEADERS = { 'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'", 'x-content-type-options': 'nosniff' };

interface Answer {
  status?: number;
  body: string;
  type?: string;
  head: boolean;
  headers?: Record<string, string>;
}

function send(response: ServerResponse, { status = 200, body, type = TEXT, head, headers = {} }: Answer): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body), 'cache-control': 'no-store', ...headers });
  response.end(head ? undefined : body);
}
