import picomatch from 'picomatch';
import { hosted } from '../../hosted/hosted.ts';
import { createQuota } from '../../hosted/quota.ts';
import { createRights } from '../../hosted/rights.ts';
import type { RegistryConfig } from '../../config/schema.ts';
import type { Caller } from '../../oci/caller.ts';
import type { Digest } from '../../oci/digest.ts';
import { OciError } from '../../oci/error.ts';
import type { Repository } from '../../oci/reference.ts';
import type { Registry } from '../../oci/registry.ts';
import { createBasicAuth, parseBasic } from '../../server/basic-auth.ts';
import type { RequestHandler } from '../../server/listen.ts';
import { servePush, type HostedRegistry, type ServePushOptions } from '../../server/serve-push.ts';
import type { Log } from '../../telemetry/log.ts';
import type { Storage } from './storage.ts';
import { upstreamsByHost } from './upstreams-by-host.ts';

export interface HostedContext {
  storage: Pick<Storage, 'uploads'>;
  used(this: void, repository: Repository, digest: Digest): void;
  log: Log;
}

export interface HostedRepositories {
  /** By the first component of their names, to be routed beside the upstreams. */
  registries: Record<string, Registry>;
  /** `next`, with what concerns hosted repositories before it. */
  serve(this: void, next: RequestHandler): RequestHandler;
}

/** An empty user and password: what skopeo, buildah and Podman send without a login where the registry asks for Basic
 *  authentication (github.com/containers/image, docker_client.go). */
const NO_CREDENTIALS = `Basic ${Buffer.from(':').toString('base64')}`;

/** The repositories of registry.hosted. */
export async function createHosted(config: RegistryConfig, { storage, used, log }: HostedContext): Promise<HostedRepositories> {
  const store = storage.uploads;
  if (Object.keys(config.hosted).length === 0) return { registries: {}, serve: (next) => next };
  const byName = new Map<string, HostedRegistry>();
  for (const [name, own] of Object.entries(config.hosted)) {
    const registry = hosted({
      name,
      store,
      maxBlobSize: own.maxBlobSize,
      isImmutable: own.immutableTags.length === 0 ? () => false : picomatch(own.immutableTags),
      checkQuota: createQuota({ name, quota: own.quota, store }),
      used,
    });
    byName.set(name, { registry, isAllowed: createRights(own) });
  }
  const authenticate = await createAuthenticate(config, log);
  return {
    registries: Object.fromEntries([...byName].map(([name, { registry }]) => [name, registry])),
    serve: (next) =>
      servePush(next, { hosted: byName, nameOf: upstreamsByHost(config.hosted), authenticate, minChunkSize: store.minPartSize, log }),
  };
}

async function createAuthenticate({ users }: RegistryConfig, log: Log): Promise<ServePushOptions['authenticate']> {
  const check = users === undefined ? undefined : await createBasicAuth({ file: users, log });
  return async (request): Promise<Caller> => {
    const { authorization } = request.headers;
    if (authorization === undefined || authorization === NO_CREDENTIALS) return { name: undefined };
    const client = { address: request.socket.remoteAddress ?? '', isGone: () => request.socket.destroyed };
    if (check === undefined || !(await check(authorization, client))) {
      throw new OciError('UNAUTHORIZED', 'the user name or the password is wrong');
    }
    return { name: parseBasic(authorization)?.user };
  };
}
