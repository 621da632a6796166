import { toolPath } from '../tools/tools.ts';
import { startProcess } from './process.ts';
import { freePort } from './temporary.ts';

export interface Moto extends AsyncDisposable {
  /** The environment of a program that shall take it for AWS. */
  env: NodeJS.ProcessEnv;
}

/** moto's server: AWS's APIs, whose state is in memory. It accepts every access key. */
export async function startMoto(): Promise<Moto> {
  const directory = await toolPath('moto');
  const port = await freePort();
  const address = `127.0.0.1:${port}`;
  const child = await startProcess({
    command: 'python3',
    args: ['-m', 'moto.server', '-H', '127.0.0.1', '-p', String(port)],
    env: { ...process.env, PYTHONPATH: directory },
    ready: () => answersToken(`http://${address}`),
  });
  return {
    env: { AWS_ENDPOINT_URL: `http://${address}`, AWS_ACCESS_KEY_ID: 'test-access-key', AWS_SECRET_ACCESS_KEY: 'test-secret-key' },
    [Symbol.asyncDispose]: () => child[Symbol.asyncDispose](),
  };
}

/** The first response takes seconds, because moto then loads its modules. */
async function answersToken(url: string): Promise<boolean> {
  const headers = {
    authorization: 'AWS4-HMAC-SHA256 Credential=test-access-key/20300101/eu-west-1/ecr/aws4_request, SignedHeaders=host, Signature=00',
    'content-type': 'application/x-amz-json-1.1',
    'x-amz-target': 'AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken',
  };
  return fetch(url, { method: 'POST', headers, body: '{}' }).then(
    ({ ok }) => ok,
    () => false, // not listening yet
  );
}
