import { setTimeout as delay } from 'node:timers/promises';
import type { WebhookConfig } from '../config/schema.ts';
import { fieldsOf, textOf, type Fields } from '../io/untrusted.ts';
import type { Log } from '../telemetry/log.ts';
import { createAuthority, isDue, isLeafOf, isPair, issueLeaf, type KeyPair } from './certificates.ts';
import type { Kubernetes } from '../kubernetes/client.ts';
import { completeConfiguration, logMissing } from './webhook-configuration.ts';

export interface SelfCertifiedOptions {
  /** The Secret that keeps the certificate, and the configuration whose API servers must trust
   *  it. */
  place: NonNullable<WebhookConfig['certificates']>;
  /** The path to which API servers send reviews. */
  reviewPath: () => string;
  /** Called with each new certificate. */
  use: (pair: KeyPair) => void;
  log: Log;
  signal: AbortSignal;
}

/** Between two checks of the Secret and the configuration. */
const INTERVAL_MS = 5_000;
const RETRY_MS = 1_000;
/** API servers notice a new caBundle within this time. Until then, no certificate is served that is
 *  valid only with the new one. */
const PROPAGATION_MS = 5_000;

/** Keeps a certificate in a Secret that all replicas share, made and renewed by whichever replica
 *  is first, and its authority in the MutatingWebhookConfiguration. During a change of authority
 *  both are trusted before a certificate of the new one is served, so that no call of an API server
 *  fails.
 *  @returns when the first certificate is in use */
export async function selfCertify(kubernetes: Kubernetes, options: SelfCertifiedOptions): Promise<void> {
  const { place, log, signal } = options;
  const names = [`${place.service}.${place.namespace}.svc`, `${place.service}.${place.namespace}.svc.cluster.local`];
  const secretPath = `/api/v1/namespaces/${place.namespace}/secrets/${place.secret}`;
  const first = Promise.withResolvers<void>();
  let serving: KeyPair | undefined;

  /** @returns false if another replica wrote the Secret first: read it again */
  async function save(secret: Fields, data: Record<string, string>): Promise<boolean> {
    const encoded = Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString('base64')]));
    return kubernetes.replace(secretPath, { ...secret, data: { ...fieldsOf(secret['data']), ...encoded } }, signal);
  }

  /** Makes API servers trust `authority` in addition to the authorities that they trusted before.
   *  @returns false if it must be tried again */
  async function trust(authority: string): Promise<boolean> {
    const outcome = await completeConfiguration(kubernetes, {
      name: place.configuration,
      authorities: authority,
      reviewPath: options.reviewPath,
      signal,
    });
    if (outcome === 'outdated') return false;
    if (outcome === 'missing') logMissing(log, place.configuration);
    if (outcome !== 'changed') return true;
    log.info({ event: 'authority-trusted', configuration: place.configuration }, 'the API server trusts the certificate authority');
    if (serving !== undefined) await delay(PROPAGATION_MS, undefined, { signal });
    return true;
  }

  /** @returns false if something was written and must be read again at once */
  async function check(): Promise<boolean> {
    const secret = fieldsOf(await kubernetes.get(secretPath, signal));
    if (secret['metadata'] === undefined) {
      throw new Error(`the Secret ${place.namespace}/${place.secret} does not exist; the chart creates it`);
    }
    const content = (key: string): string => Buffer.from(textOf(fieldsOf(secret['data'])[key]) ?? '', 'base64').toString();
    const authority = { cert: content('ca.crt'), key: content('ca.key') };
    if (!isPair(authority) || isDue(authority.cert)) {
      const fresh = await createAuthority();
      log.info({ event: 'authority-created' }, 'created a new certificate authority');
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
    log.info({ event: 'certificate-in-use' }, 'a new certificate is in use');
    first.resolve();
    return true;
  }

  async function keep(): Promise<void> {
    while (!signal.aborted) {
      let pause = INTERVAL_MS;
      try {
        if (!(await check())) pause = 0;
      } catch (error) {
        if (signal.aborted) break;
        log.warn({ event: 'certificate-check-failed', error }, 'cannot check or renew the certificate; will retry');
        pause = serving === undefined ? RETRY_MS : INTERVAL_MS;
      }
      await delay(pause + Math.random() * 100, undefined, { signal }).catch(() => undefined); // aborted: the loop ends
    }
    first.reject(signal.reason);
  }
  void keep();
  return first.promise;
}
