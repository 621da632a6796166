import { createHmac, randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import picomatch from 'picomatch';
import { hosted } from '../../hosted/hosted.ts';
import { createQuota } from '../../hosted/quota.ts';
import { applyRetention, type RetentionOptions } from '../../hosted/retention.ts';
import { createRights } from '../../hosted/rights.ts';
import { createServiceAccounts, TOKEN_AUDIENCE, type ReviewToken } from '../../hosted/service-accounts.ts';
import { createExpiringCache } from '../../io/expiring-cache.ts';
import { fieldsOf } from '../../io/untrusted.ts';
import type { HostedConfig } from '../../config/hosted-schema.ts';
import type { RegistryConfig } from '../../config/schema.ts';
import { SERVICE_ACCOUNT_PREFIX, type Caller } from '../../oci/caller.ts';
import type { Digest } from '../../oci/digest.ts';
import { isOciError, OciError } from '../../oci/error.ts';
import type { PushRegistry } from '../../oci/push-registry.ts';
import { parseRepository, type Repository } from '../../oci/reference.ts';
import {
  createBasicAuth,
  NO_CREDENTIALS,
  parseBasic,
  withBasicAuth,
  type Authenticate,
  type LoginClient,
} from '../../server/basic-auth.ts';
import type { HostedRegistry } from '../../server/hosted-registry.ts';
import { servePush, type ServePushOptions } from '../../server/serve-push.ts';
import type { UploadStore } from '../../store/upload-store.ts';
import type { Log } from '../../telemetry/log.ts';
import { connectKubernetes, type Kubernetes } from '../../kubernetes/client.ts';
import { notHosted, type HostedRepositories } from './no-hosted.ts';
import type { Storage } from './storage.ts';
import { servedNames } from './served-names.ts';

export interface HostedContext {
  env: NodeJS.ProcessEnv;
  storage: Pick<Storage, 'uploads'>;
  used(this: void, repository: Repository, digest: Digest): void;
  log: Log;
}

/** The user name of ServiceAccounts, whose password is a projected token. */
const SERVICE_ACCOUNT_USER = 'serviceaccount';
const REVIEW_TIMEOUT_MS = 10_000;

/** The repositories of registry.hosted, of which there is at least one. */
export async function createHosted(config: RegistryConfig, { storage, used, env, log }: HostedContext): Promise<HostedRepositories> {
  const store = storage.uploads;
  const registries = createRegistries(config, { store, used });
  const byName = new Map<string, HostedRegistry>();
  for (const [name, registry] of Object.entries(registries)) {
    const own = config.hosted[name];
    if (own !== undefined) byName.set(name, { registry, isAllowed: createRights(own) });
  }
  const authenticate = await createAuthenticate(config, env, log);
  const serving = { hosted: byName, nameOf: servedNames(config).upstreamOf, minChunkSize: store.minPartSize, log };
  return {
    registries,
    serve: (next) => servePush(next, { ...serving, authenticate, tokens: asksDocker(config) }),
    serveExposed: (next, admits) =>
      servePush(withBasicAuth(next, admits), { ...serving, read: next, authenticate: alsoAdmitting(authenticate, admits) }),
    async deleteTag(repository, tag, signal) {
      const slash = repository.indexOf('/');
      const found = byName.get(repository.slice(0, slash));
      if (found === undefined) throw notHosted(repository);
      await found.registry.deleteManifest(parseRepository(repository.slice(slash + 1)), tag, { signal });
    },
    applyRetention: (signal) => applyRetentionRules(config, { registries, store, log, signal }),
  };
}

/** The repositories themselves, by the first component of their names. */
export function createRegistries(
  config: Pick<RegistryConfig, 'hosted'>,
  { store, used }: Pick<HostedContext, 'used'> & { store: UploadStore },
): Record<string, PushRegistry> {
  const entries = Object.entries(config.hosted).map(([name, own]) => {
    const isImmutable = matcherOf(own.immutableTags);
    const quota = createQuota({ name, quota: own.quota, store });
    return [name, hosted({ name, store, maxBlobSize: own.maxBlobSize, isImmutable, quota, used })] as const;
  });
  return Object.fromEntries(entries);
}

/** Applies the retention rules. @returns the deleted tags and manifests */
export async function applyRetentionRules(
  config: Pick<RegistryConfig, 'hosted'>,
  {
    registries,
    ...context
  }: Omit<RetentionOptions, 'name' | 'registry' | 'rules' | 'isImmutable'> & { registries: Record<string, PushRegistry> },
): Promise<string[]> {
  const deleted: string[] = [];
  for (const [name, registry] of Object.entries(registries)) {
    const own = config.hosted[name];
    if (own?.retention === undefined) continue;
    const isImmutable = matcherOf(own.immutableTags);
    deleted.push(...(await applyRetention({ ...context, name, registry, rules: own.retention, isImmutable })));
  }
  return deleted;
}

function matcherOf(globs: string[]): (tag: string) => boolean {
  return globs.length === 0 ? () => false : picomatch(globs);
}

async function createAuthenticate(
  { users, hosted }: RegistryConfig,
  env: NodeJS.ProcessEnv,
  log: Log,
): Promise<ServePushOptions['authenticate']> {
  const checkUser = users === undefined ? undefined : await createBasicAuth({ file: users, log });
  const nameOfToken = Object.values(hosted).some(namesServiceAccounts) ? createServiceAccounts(createReview(env)) : undefined;

  return async (request): Promise<Caller> => {
    const { authorization } = request.headers;
    if (authorization === undefined || authorization === NO_CREDENTIALS) return { name: undefined };
    const given = parseBasic(authorization);
    if (given?.user === SERVICE_ACCOUNT_USER && nameOfToken !== undefined) {
      const name = await nameOfToken(given.password, AbortSignal.timeout(REVIEW_TIMEOUT_MS));
      if (name !== undefined) return { name: SERVICE_ACCOUNT_PREFIX + name };
      throw new OciError('UNAUTHORIZED', `the token is not valid, or not for the audience ${TOKEN_AUDIENCE}`);
    }
    if (given !== undefined && checkUser !== undefined && (await checkUser(authorization, clientOf(request)))) return { name: given.user };
    throw new OciError('UNAUTHORIZED', 'the user name or the password is wrong');
  };
}

/** How long a login that only `admits` accepts is not checked against registry.users again, because
 *  each check costs a bcrypt hash. */
const OUTSIDER_LIFE_MS = 10_000;
const MAX_OUTSIDERS = 1_000;

/** A user that `admits` accepts, but that is not in registry.users, becomes a caller without a
 *  name. */
function alsoAdmitting(authenticate: ServePushOptions['authenticate'], admits: Authenticate): ServePushOptions['authenticate'] {
  const secret = randomBytes(32);
  const outsiders = createExpiringCache<string, true>({ max: MAX_OUTSIDERS, ttl: OUTSIDER_LIFE_MS });
  return async (request) => {
    const { authorization } = request.headers;
    const key = createHmac('sha256', secret)
      .update(authorization ?? '')
      .digest('base64');
    let refused = new OciError('UNAUTHORIZED', 'a user name and password are required: log in first');
    if (!outsiders.has(key)) {
      try {
        const caller = await authenticate(request);
        if (caller.name !== undefined) return caller;
      } catch (error) {
        if (!isOciError(error, 'UNAUTHORIZED')) throw error;
        refused = error;
      }
    }
    if (!(await admits(authorization, clientOf(request)))) throw refused;
    outsiders.set(key, true);
    return { name: undefined };
  };
}

function clientOf({ socket }: IncomingMessage): LoginClient {
  return { address: socket.remoteAddress ?? '', isGone: () => socket.destroyed };
}

function namesServiceAccounts({ pull, push, delete: remove }: HostedConfig): boolean {
  return [...(pull === 'anyone' ? [] : pull), ...push, ...remove].some(({ serviceAccounts }) => serviceAccounts.length > 0);
}

/** Whether Docker is asked to log in at registry.listen. With a default upstream, this registry may
 *  be one of dockerd's registry-mirrors: dockerd would then send the password of Docker Hub. */
function asksDocker({ defaultUpstream, users, hosted }: RegistryConfig): boolean {
  return defaultUpstream === undefined && (users !== undefined || Object.values(hosted).some(namesServiceAccounts));
}

function createReview(env: NodeJS.ProcessEnv): ReviewToken {
  let connecting: Promise<Kubernetes> | undefined;
  return async (token, signal) => {
    connecting ??= connectKubernetes(env);
    connecting.catch(() => (connecting = undefined)); // the next token tries again
    const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token, audiences: [TOKEN_AUDIENCE] } };
    const answer = await (await connecting).create('/apis/authentication.k8s.io/v1/tokenreviews', review, signal);
    return fieldsOf(answer)['status'];
  };
}
