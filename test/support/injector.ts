import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { createAuthority, issueLeaf } from '../../src/webhook/certificates.ts';

export interface Injector extends AsyncDisposable {
  /** The clientConfig for a MutatingWebhookConfiguration. */
  clientConfig: { url: string; caBundle: string };
}

/** A webhook that adds a container with this image to every pod, as service meshes do. */
export async function startInjector(image: string): Promise<Injector> {
  const authority = await createAuthority();
  const leaf = await issueLeaf(authority, ['localhost']);
  const operations = [{ op: 'add', path: '/spec/containers/-', value: { name: 'sidecar', image } }];
  const patch = Buffer.from(JSON.stringify(operations)).toString('base64');
  const server = createServer({ cert: leaf.cert, key: leaf.key }, (incoming, answer) => {
    void text(incoming).then((body) => {
      const { uid } = (JSON.parse(body) as { request: { uid: string } }).request;
      const response = { uid, allowed: true, patchType: 'JSONPatch', patch };
      const review = { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response };
      answer.setHeader('content-type', 'application/json').end(JSON.stringify(review));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    clientConfig: { url: `https://localhost:${port}/`, caBundle: Buffer.from(authority.cert).toString('base64') },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
