import { generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { listenOnLoopback } from './http.ts';

export interface TokenServerOptions {
  /** Passwords by user name. */
  accounts?: Record<string, string>;
  /** Whether `account` (undefined: anonymous) may do `action` (pull, push) in `repository`;
   *  default: every account may do everything. */
  allow?: (account: string | undefined, repository: string, action: string) => boolean;
  /** The lifetime of a token, in seconds; default 300. */
  lifetime?: number;
  /** Where to listen; default 127.0.0.1. */
  host?: string;
  /** Its certificate's files, and the name that the certificate is of; default: plain HTTP. */
  tls?: { certificate: string; key: string; name: string };
}

export interface TokenServer extends AsyncDisposable {
  realm: string;
  service: string;
  issuer: string;
  /** The public key as a JSON Web Key Set, for the registry that is to trust the tokens. */
  keys: string;
  /** The requests so far: account and scopes. */
  requests: { account: string | undefined; scopes: string[] }[];
}

const SERVICE = 'registry.test';
const ISSUER = 'issuer.test';
const KEY_ID = 'key-1';

/** A token server by the Distribution project's token specification, such as Docker Hub's. A wrong
 *  password gets 401. */
export async function startTokenServer(options: TokenServerOptions = {}): Promise<TokenServer> {
  const { accounts = {}, allow = (account) => account !== undefined, lifetime = 300, tls } = options;
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const requests: TokenServer['requests'] = [];

  function issue(account: string | undefined, scopes: string[]): string {
    const access = scopes.map((scope) => {
      const [type = '', name = '', actions = ''] = scope.split(':');
      return { type, name, actions: actions.split(',').filter((action) => allow(account, name, action)) };
    });
    const now = Math.floor(Date.now() / 1000);
    const header = encode({ typ: 'JWT', alg: 'ES256', kid: KEY_ID });
    const claims = {
      iss: ISSUER,
      sub: account ?? '',
      aud: SERVICE,
      exp: now + lifetime,
      nbf: now - 5,
      iat: now,
      jti: randomUUID(),
      access,
    };
    const signed = `${header}.${encode(claims)}`;
    return `${signed}.${sign('sha256', Buffer.from(signed), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  }

  const answer: RequestListener = (request, response) => {
    const account = basicUser(request.headers.authorization, accounts);
    const scopes = new URL(request.url ?? '/', 'http://localhost').searchParams.getAll('scope').flatMap((scope) => scope.split(' '));
    if (account === null) {
      response.writeHead(401, { 'content-type': 'application/json' }).end('{"errors":[{"code":"UNAUTHORIZED"}]}');
      return;
    }
    requests.push({ account, scopes });
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ token: issue(account, scopes), expires_in: lifetime, issued_at: new Date().toISOString() }));
  };
  const server =
    tls === undefined
      ? createServer(answer)
      : createSecureServer({ cert: await readFile(tls.certificate), key: await readFile(tls.key) }, answer);
  const listening = await listenOnLoopback(server, options.host);
  return {
    realm: tls === undefined ? `${listening.url}/token` : `https://${tls.name}:${listening.port}/token`,
    service: SERVICE,
    issuer: ISSUER,
    keys: JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: KEY_ID, use: 'sig', alg: 'ES256' }] }),
    requests,
    [Symbol.asyncDispose]: () => listening[Symbol.asyncDispose](),
  };
}

/** The user of a right Authorization header, undefined without one, null for a wrong one. */
function basicUser(header: string | undefined, accounts: Record<string, string>): string | undefined | null {
  if (header === undefined) return undefined;
  const [user = '', ...password] = Buffer.from(header.replace(/^Basic /i, ''), 'base64')
    .toString()
    .split(':');
  return accounts[user] === password.join(':') ? user : null;
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}
