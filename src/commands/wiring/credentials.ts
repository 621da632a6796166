import { azureLogin } from '../../clouds/azure.ts';
import { ecrLogin } from '../../clouds/ecr.ts';
import { gcpLogin } from '../../clouds/gcp.ts';
import { createShortLivedLogin, type LogIn } from '../../clouds/short-lived-login.ts';
import { createSecret } from '../../config/secret.ts';
import type { Mirror } from '../../config/schema.ts';
import { createTransport } from '../../http/undici-transport.ts';
import type { Log } from '../../telemetry/log.ts';
import type { Credentials } from '../../upstream/authorizer.ts';

interface Cloud {
  /** For messages. */
  issuer: string;
  advice: string;
  logIn: LogIn;
}

/** The login that a `credentials` entry of an upstream or a mirror describes. */
export function createCredentials(
  entry: Mirror['credentials'][number],
  address: Mirror,
  { upstream, log }: { upstream: string; log: Log | undefined },
): Credentials {
  const { repositories } = entry;
  const cloud = cloudOf(entry, address);
  if (cloud === undefined) {
    return {
      repositories,
      username: createSecret({ value: entry.username, file: entry.usernameFile }),
      password: createSecret({ value: entry.password, file: entry.passwordFile }),
    };
  }
  const { issuer, advice, logIn } = cloud;
  const onRenewalFailed = (error: Error): void =>
    log?.warn({ event: 'cloud-login-not-renewed', upstream, error: error.message }, 'cannot renew a password of a cloud; will retry');
  return { repositories, ...createShortLivedLogin(logIn, { issuer, advice, onRenewalFailed }) };
}

function cloudOf({ ecr, gcp, azure }: Mirror['credentials'][number], { url, ca, proxy }: Mirror): Cloud | undefined {
  const registry = new URL(url);
  if (ecr !== undefined) {
    const advice = "check the pod's AWS identity and its permission ecr:GetAuthorizationToken";
    return { issuer: `Amazon ECR (${registry.host})`, advice, logIn: ecrLogin(registry, ecr) };
  }
  if (gcp !== undefined) {
    const advice = "check the pod's Google identity and its role roles/artifactregistry.reader";
    return { issuer: `Google Cloud (${registry.host})`, advice, logIn: gcpLogin(gcp) };
  }
  if (azure !== undefined) {
    const { openDispatcher } = createTransport({ proxy, ca });
    const advice = "check the pod's Azure identity and its role AcrPull";
    return { issuer: `Azure Container Registry (${registry.host})`, advice, logIn: azureLogin(registry, azure, openDispatcher) };
  }
  return undefined;
}
