import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import { createAuthority, issueLeaf } from '../../src/webhook/certificates.ts';
import { answersOk } from './process.ts';
import { startProgram, type Program } from './program.ts';
import { freePort } from './temporary.ts';

export interface RunningWebhook extends Program {
  port: number;
  /** https://127.0.0.1:PORT */
  url: string;
  /** http://127.0.0.1:PORT of `admin`. */
  admin: string;
}

/** `kube-registry webhook`, ready, on free ports where the configuration names none. `rest` holds
 *  further top-level keys. */
export async function startWebhook(
  configuration: Record<string, unknown> & { listen?: string },
  env: NodeJS.ProcessEnv = {},
  rest: Record<string, unknown> = {},
): Promise<RunningWebhook> {
  const [free, adminPort] = [await freePort(), await freePort()];
  const admin = `http://127.0.0.1:${adminPort}`;
  const port = Number(/:(\d+)$/.exec(configuration.listen ?? '')?.[1] ?? free);
  const webhook = { listen: `127.0.0.1:${port}`, admin: `127.0.0.1:${adminPort}`, ...configuration };
  const program = await startProgram('webhook', { ...rest, webhook }, { env, ready: () => answersOk(`${admin}/readyz`) });
  return { ...program, port, admin, url: `https://127.0.0.1:${port}` };
}

/** Sends a review of a pod whose image is rewritten unless a rule prevents it. */
export const REVIEW = JSON.stringify({
  request: { uid: 'u', operation: 'CREATE', namespace: 'default', object: { spec: { containers: [{ name: 'a', image: 'nginx' }] } } },
});

export interface ReviewResponse {
  uid: string;
  allowed: boolean;
  /** Base64 of a JSON patch. */
  patch?: string;
}

export interface Reviewer extends AsyncDisposable {
  /** The value of `webhook.tls`. */
  tls: { certFile: string; keyFile: string };
  /** PEM: the authority that API servers must trust. */
  authority: string;
  /** Posts as the API server does. */
  post(
    webhook: RunningWebhook,
    body: string,
    options?: { type?: string; path?: string },
  ): Promise<{ status: number; response: ReviewResponse }>;
}

/** A client that trusts a certificate which it has created in `directory`. */
export async function createReviewer(directory: string): Promise<Reviewer> {
  const authority = await createAuthority();
  const leaf = await issueLeaf(authority, ['localhost']);
  const tls = { certFile: join(directory, 'tls.crt'), keyFile: join(directory, 'tls.key') };
  await Promise.all([writeFile(tls.certFile, leaf.cert), writeFile(tls.keyFile, leaf.key)]);
  const dispatcher = new Agent({ connect: { ca: authority.cert, servername: 'localhost' } });
  return {
    tls,
    authority: authority.cert,
    async post({ url }, body, { type = 'application/json', path = '/mutate' } = {}) {
      const headers = { 'content-type': type };
      const answer = await request(url + path, { method: 'POST', body, headers, dispatcher });
      const { response } = (await answer.body.json()) as { response: ReviewResponse };
      return { status: answer.statusCode, response };
    },
    [Symbol.asyncDispose]: () => dispatcher.destroy(),
  };
}
