import { setTimeout as delay } from 'node:timers/promises';
import type { WebhookConfig } from '../config/schema.ts';
import type { Log } from '../telemetry/log.ts';
import { createAuthority, isDue, isLeafOf, isPair, issueLeaf, mergeBundles, type KeyPair } from './certificates.ts';
import { fieldsOf, itemsOf, textOf, type Fields } from '../io/untrusted.ts';
import type { Kubernetes } from './kubernetes.ts';

export interface SelfCertifiedOptions {
  /** Where the certificate lives, and who must trust it. */
  place: NonNullable<WebhookConfig['certificates']>;
  /** Gets each new pair. */
  use: (pair: KeyPair) => void;
  log: Log;
  signal: AbortSignal;
}

/** Milliseconds between two looks at the Secret and the configuration. */
const INTERVAL = 5_000;
const RETRY = 1_000;
/** How long API servers get to learn of a new caBundle, before a certificate goes out that only it makes valid. */
const PROPAGATION = 5_000;
/** Authorities in the caBundle. */
const MAX_TRUSTED = 3;

/** Keeps a certificate in a Secret that all replicas share, made and renewed by whichever is first, and its authority in the
 *  MutatingWebhookConfiguration. While an authority changes, the old one and the new one are both trusted before any certificate of
 *  the new one is served, so that no call of an API server fails. Resolves when the first pair is in use. */
export async function selfCertify(kubernetes: Kubernetes, options: SelfCertifiedOptions): Promise<void> {
  const { place, log, signal } = options;
  const names = [`${place.service}.${place.namespace}.svc`, `${place.service}.${place.namespace}.svc.cluster.local`];
  const secretPath = `/api/v1/namespaces/${place.namespace}/secrets/${place.secret}`;
  const configurationPath = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${place.configuration}`;
  const first = Promise.withResolvers<void>();
  let serving: KeyPair | undefined;

  /** @returns false: another replica was faster, look again */
  async function save(secret: Fields, data: Record<string, string>): Promise<boolean> {
    const encoded = Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString('base64')]));
    return kubernetes.replace(secretPath, { ...secret, data: { ...fieldsOf(secret['data']), ...encoded } }, signal);
  }

  /** Lets the API server trust `authority` beside what it trusted. @returns false: look again */
  async function trust(authority: string): Promise<boolean> {
    const configuration = fieldsOf(await kubernetes.get(configurationPath, signal));
    const webhooks = itemsOf(configuration['webhooks']);
    if (webhooks.length === 0) {
      log.warn({ configuration: place.configuration }, 'there is no such MutatingWebhookConfiguration: nobody calls this webhook');
      return true;
    }
    const bundles = webhooks.map(({ clientConfig }) => Buffer.from(textOf(fieldsOf(clientConfig)['caBundle']) ?? '', 'base64').toString());
    const caBundle = mergeBundles([authority, ...bundles], MAX_TRUSTED);
    if (bundles.every((bundle) => bundle === caBundle)) return true;
    const trusting = webhooks.map((one) => ({
      ...one,
      clientConfig: { ...fieldsOf(one['clientConfig']), caBundle: Buffer.from(caBundle).toString('base64') },
    }));
    if (!(await kubernetes.replace(configurationPath, { ...configuration, webhooks: trusting }, signal))) return false;
    log.info({ configuration: place.configuration }, 'the API server trusts the certificate authority');
    if (serving !== undefined) await delay(PROPAGATION, undefined, { signal });
    return true;
  }

  /** @returns false: look again at once */
  async function look(): Promise<boolean> {
    const secret = fieldsOf(await kubernetes.get(secretPath, signal));
    if (secret['metadata'] === undefined) throw new Error(`there is no Secret ${place.namespace}/${place.secret}; the chart makes it`);
    const content = (key: string): string => Buffer.from(textOf(fieldsOf(secret['data'])[key]) ?? '', 'base64').toString();
    const authority = { cert: content('ca.crt'), key: content('ca.key') };
    if (!isPair(authority) || isDue(authority.cert)) {
      const fresh = await createAuthority();
      log.info('a new certificate authority is made');
      await save(secret, { 'ca.crt': fresh.cert, 'ca.key': fresh.key });
      return false;
    }
    if (!(await trust(authority.cert))) return false;
    const leaf = { cert: content('tls.crt'), key: content('tls.key') };
    if (isDue(leaf.cert) || !isLeafOf(leaf, authority, names)) {
      const fresh = await issueLeaf(authority, names);
      await save(secret, { 'tls.crt': fresh.cert, 'tls.key': fresh.key });
      return false;
    }
    if (serving?.cert === leaf.cert) return true;
    serving = leaf;
    options.use(leaf);
    log.info('a new certificate is in use');
    first.resolve();
    return true;
  }

  async function keep(): Promise<void> {
    while (!signal.aborted) {
      let pause = INTERVAL;
      try {
        if (!(await look())) pause = 0;
      } catch (error) {
        if (signal.aborted) break;
        log.warn({ error }, 'the certificate cannot be looked after');
        pause = serving === undefined ? RETRY : INTERVAL;
      }
      await delay(pause + Math.random() * 100, undefined, { signal }).catch(() => undefined); // the loop's condition tells
    }
    first.reject(signal.reason);
  }
  void keep();
  return first.promise;
}
