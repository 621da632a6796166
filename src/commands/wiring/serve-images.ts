import type { RegistryConfig } from '../../config/schema.ts';
import { REPORT_HEADER } from '../../nearest/agreement.ts';
import type { Registry } from '../../oci/registry.ts';
import { isFromPeer } from '../../peers/peer.ts';
import { createAccessLog } from '../../server/access-log.ts';
import type { Authenticate } from '../../server/basic-auth.ts';
import type { RequestHandler } from '../../server/listen.ts';
import { takeLogin } from '../../server/mirror-login.ts';
import { lazyFileSender } from '../../server/send-file.ts';
import { serveRegistry, type ServeOptions } from '../../server/serve-registry.ts';
import type { Log } from '../../telemetry/log.ts';
import type { RegistryMetrics } from '../../telemetry/registry-metrics.ts';
import type { Images } from './images.ts';
import type { Observation } from './observation.ts';
import { placementOf } from './placement.ts';
import { servedNames } from './served-names.ts';
import type { Storage } from './storage.ts';

export interface ServeImagesContext {
  images: Images;
  storage: Storage;
  /** Undefined: there is no console. */
  observation: Pick<Observation, 'served'> | undefined;
  counts: RegistryMetrics;
  log: Log;
}

export interface ImageHandlers {
  /** For registry.listen. */
  handler: RequestHandler;
  /** For registry.exposed: everything needs a login that `admits` accepts. */
  exposed(this: void, admits: Authenticate): RequestHandler;
  /** Writes the pending lines of the access log. */
  close(this: void): void;
}

/** Answers clients and other replicas. */
export function serveImages(own: RegistryConfig, { images, storage, observation, counts, log }: ServeImagesContext): ImageHandlers {
  const { local, proofs, peers, imagesFor, serveHosted, serveExposed } = images;
  const accessLog = own.accessLog ? createAccessLog({ log }) : undefined;
  const forReplicas: ServeOptions = {
    log,
    ...servedNames(own),
    fileSender: lazyFileSender(),
    observe: (served) => counts.answered(served.upstream, served),
  };
  const forClients: ServeOptions = {
    ...forReplicas,
    accessLog,
    observe(served) {
      counts.answered(served.upstream, served);
      observation?.served(served);
    },
  };
  const placement = placementOf({ proofs, peers, storage, log, metrics: counts });
  const toClients = serveRegistry(images.images, { ...forClients, redirect: placement.forClient });
  const toReplicas = serveRegistry(local, { ...forReplicas, redirect: placement.forReplica });
  const toAnyone: RequestHandler = (request, response) => {
    const fromPeer = isFromPeer(request.headers);
    if (REPORT_HEADER in request.headers) placement.receiveReport(request.headers, fromPeer);
    return (fromPeer ? toReplicas : toClients)(request, response);
  };
  return {
    handler: withMirrorLogins(serveHosted(toAnyone), {
      imagesFor,
      serve: (images) => serveHosted(serveRegistry(images, forClients)),
    }),
    exposed: (admits) => serveExposed(toAnyone, admits),
    close: () => accessLog?.close(),
  };
}

/** Serves requests with a login that an agent has passed on: upstream images as that login may read
 *  them, and hosted repositories if it is that of a user or a ServiceAccount. */
function withMirrorLogins(
  next: RequestHandler,
  { imagesFor, serve }: Pick<Images, 'imagesFor'> & { serve(this: void, images: Registry): RequestHandler },
): RequestHandler {
  const handlers = new WeakMap<Registry, RequestHandler>();
  return (request, response) => {
    const login = takeLogin(request);
    const reading = login === undefined || isFromPeer(request.headers) ? undefined : imagesFor(login);
    if (reading === undefined) return next(request, response);
    request.headers.authorization = login;
    const handler = handlers.get(reading) ?? serve(reading);
    handlers.set(reading, handler);
    return handler(request, response);
  };
}
