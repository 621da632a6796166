import { LRUCache } from 'lru-cache';
import type { Upstream, WebhookConfig } from '../config/schema.ts';
import { fullNames, parseImage, servedHosts, type ServedConfig } from '../oci/image-name.ts';
import { parseImageRepository, type ImageRepository } from '../pull-secrets/keyring.ts';
import { globs } from '../oci/globs.ts';
import { rewriteImage } from './rewrite-image.ts';

/** The parts of `registry` that determine which images are rewritten. */
export type ServedRegistry = ServedConfig & { upstreams: Readonly<Record<string, Upstream>> };

/** What the configuration says about an image: the same for every pod. */
export interface ImageFacts {
  /** Its rewritten name as a public image; undefined: the registry does not serve it. */
  plain: string | undefined;
  /** Whether it is an image name. */
  isName: boolean;
  isExcluded: boolean;
  /** Whether the registry pulls it without a pull secret of the pod. */
  isPulledByAll: boolean;
  repository: ImageRepository;
}

/** Images that can be pulled without a secret: Docker Official Images, those of Kubernetes,
 *  and distroless. */
export const PUBLIC_REPOSITORIES = [
  'docker.io/library/*',
  'registry.k8s.io/**',
  'k8s.gcr.io/**',
  'gcr.io/distroless/**',
  'gcr.io/google-containers/**',
];

/** Pods name the same images again and again, and matching globs takes longer than the rest of a
 *  review. */
const REMEMBERED = { images: 2_000, maxLength: 512 };

export function createImageRules(config: WebhookConfig, registry: ServedRegistry): (image: string) => ImageFacts {
  const rules = { registryHost: config.registryHost, hosts: servedHosts(registry) };
  const isExcluded = globs(config.exclude.images);
  const isPublic = globs([...PUBLIC_REPOSITORIES, ...config.publicRepositories]);
  /** Repositories whose images the registry pulls with its own credentials. */
  const credentialed = Object.values(registry.upstreams).flatMap(({ hosts, credentials }) =>
    hosts.flatMap((host) => credentials.map(({ repositories }) => `${host}/${repositories}`)),
  );

  function determine(image: string): ImageFacts {
    const names = fullNames(image);
    return {
      plain: rewriteImage(image, rules),
      isName: parseImage(image) !== undefined,
      isExcluded: names.some(isExcluded),
      isPulledByAll: names.some((name) => isPublic(name) || credentialed.some((prefix) => name.startsWith(prefix))),
      repository: parseImageRepository(names[0] ?? ''),
    };
  }

  const remembered = new LRUCache<string, ImageFacts>({ max: REMEMBERED.images });
  return (image) => {
    const known = remembered.get(image);
    if (known !== undefined) return known;
    const facts = determine(image);
    if (image.length <= REMEMBERED.maxLength) remembered.set(image, facts);
    return facts;
  };
}
