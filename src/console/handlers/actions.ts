import type { Digest } from '../../oci/digest.ts';
import type { Reference, Repository, Tag } from '../../oci/reference.ts';
import type { Log } from '../../telemetry/log.ts';
import { deletedSchema, jobsSchema, type Job } from '../api/actions.ts';
import { ApiFailure, type ApiHandlers } from '../api-server.ts';
import type { InventoryService } from '../inventory-service.ts';
import type { Advance, Jobs } from '../jobs.ts';
import type { Pin, Pins } from '../../upkeep/pins.ts';
import type { OtherReplicas } from '../replicas.ts';
import type { Session } from '../sessions.ts';

export interface ActionsOptions {
  jobs: Jobs;
  pins: Pins;
  inventory: InventoryService;
  replicas: OtherReplicas;
  log: Log;
  /** The upstream and repository of an image; undefined: the registry does not serve it. */
  locate(this: void, image: string): { repository: Repository; reference: Reference } | undefined;
  warm(
    this: void,
    image: { repository: Repository; reference: Reference; platforms: readonly string[] },
    advance: Advance,
    signal: AbortSignal,
  ): Promise<void>;
  prune(this: void, options: { dryRun: boolean; advance: Advance; signal: AbortSignal }): Promise<Job['result']>;
  /** The digest of a tag; undefined: there is no such tag. */
  readTag(this: void, name: { repository: Repository; tag: Tag }, signal: AbortSignal): Promise<Digest | undefined>;
  /** Deletes a tag from the store and from the memory of this process.
   *  @throws OciError DENIED: it is immutable; UNAVAILABLE */
  deleteTag(this: void, name: { repository: Repository; tag: Tag }, signal: AbortSignal): Promise<void>;
  /** Whether the repository is a hosted one. */
  isHosted(this: void, repository: Repository): boolean;
}

/** How long the result of a dry run may be used as a plan for pruning, in ms. */
const PLAN_LIFE_MS = 3_600_000;

/** Actions of logged-in users. Each is logged with the user. */
export function createActionHandlers(
  options: ActionsOptions,
): Pick<ApiHandlers, 'jobs' | 'warm' | 'pin' | 'unpin' | 'deleteTag' | 'prune'> {
  const { jobs, pins, inventory, replicas, log } = options;
  const deleteOnce = createTagDeletion(options);

  return {
    jobs: async ({ alone, signal }) => ({ jobs: alone ? jobs.list() : await allJobs(options, signal) }),

    warm({ body, session }) {
      const located = options.locate(body.image);
      if (located === undefined)
        throw new ApiFailure('BAD_REQUEST', `no upstream serves the host of ${body.image}, or it is not an image name`);
      return start(jobs, { kind: 'warm', what: body.image, session }, async (advance, signal) => {
        await options.warm({ ...located, platforms: body.platforms }, advance, signal);
        inventory.changed();
        return null;
      });
    },

    async pin({ body, session, signal }) {
      const pin = pinOf(body);
      await pins.add(pin, userOf(session), signal);
      log.info({ event: 'image-pinned', user: userOf(session), ...pin }, 'an image was pinned in the console');
      return {};
    },

    async unpin({ body, session, signal }) {
      const pin = pinOf(body);
      await pins.remove(pin, signal);
      log.info({ event: 'image-unpinned', user: userOf(session), ...pin }, 'an image was unpinned in the console');
      return {};
    },

    async deleteTag({ body, session, alone, token, signal }) {
      const name = { repository: body.repository, tag: body.tag };
      const note = options.isHosted(name.repository)
        ? 'the tag was deleted for all clients'
        : 'the tag was removed from the cache; the next pull looks it up at the upstream';
      if (alone) {
        await options.deleteTag(name, signal);
        return { deleted: true, note };
      }
      const deleted = await deleteOnce(name, body.digest, signal);
      if (!deleted) return { deleted, note };
      // Other replicas may still have the tag in memory.
      if (!options.isHosted(name.repository)) {
        await replicas.ask('/api/actions/delete-tag', deletedSchema, { method: 'POST', body: name, token });
      }
      inventory.changed();
      log.info({ event: 'tag-deleted', user: userOf(session), ...name, digest: body.digest }, 'a tag was deleted in the console');
      return { deleted, note };
    },

    async prune({ body, session, signal }) {
      if (body.dryRun) {
        return start(jobs, { kind: 'prune-dry-run', what: 'dry run', session }, (advance, stop) =>
          options.prune({ dryRun: true, advance, signal: stop }),
        );
      }
      await requirePlan(options, body.plan, signal);
      return start(jobs, { kind: 'prune', what: 'as shown by the dry run', session }, async (advance, stop) => {
        const result = await options.prune({ dryRun: false, advance, signal: stop });
        inventory.changed();
        return result;
      });
    },
  };
}

/** The latest jobs of all replicas. */
async function allJobs({ jobs, replicas }: ActionsOptions, signal: AbortSignal): Promise<Job[]> {
  const { answers } = await replicas.ask('/api/jobs', jobsSchema, { signal });
  const all = [...jobs.list(), ...answers.flatMap(({ answer }) => answer.jobs)];
  return all.sort((one, other) => other.startedAt.localeCompare(one.startedAt)).slice(0, 50);
}

function start(
  jobs: Jobs,
  { kind, what, session }: { kind: Job['kind']; what: string; session: Session | undefined },
  work: Parameters<Jobs['start']>[2],
): Job {
  const job = jobs.start(kind, { what, user: userOf(session) }, work);
  if (job === undefined) throw new ApiFailure('TOO_MANY_REQUESTS', 'too many actions run at once; wait until one is done');
  return job;
}

/** @throws ApiFailure CONFLICT: `id` is no recent dry run */
async function requirePlan(options: ActionsOptions, id: string | undefined, signal: AbortSignal): Promise<void> {
  const plan = (await allJobs(options, signal)).find((job) => job.id === id);
  const isShown = plan?.kind === 'prune-dry-run' && plan.state === 'done' && Date.now() - Date.parse(plan.endedAt ?? '') < PLAN_LIFE_MS;
  if (!isShown) throw new ApiFailure('CONFLICT', 'start a dry run first, and send its id as the plan; it is valid for an hour');
}

/** Deletes a tag once for simultaneous requests.
 *  @returns a function that returns whether this call has deleted the tag */
function createTagDeletion({ readTag, deleteTag }: Pick<ActionsOptions, 'readTag' | 'deleteTag'>) {
  const deleting = new Map<string, Promise<boolean>>();

  async function deleteIfExpected(
    name: { repository: Repository; tag: Tag },
    expected: Digest | undefined,
    signal: AbortSignal,
  ): Promise<boolean> {
    const found = await readTag(name, signal);
    if (found === undefined) return false;
    if (expected !== undefined && found !== expected) {
      throw new ApiFailure('CONFLICT', `${name.repository}:${name.tag} now refers to another image, ${found}; nothing was deleted`);
    }
    await deleteTag(name, signal);
    return true;
  }

  return async (name: { repository: Repository; tag: Tag }, expected: Digest | undefined, signal: AbortSignal): Promise<boolean> => {
    const key = `${name.repository}:${name.tag}`;
    if (deleting.has(key)) {
      await deleting.get(key)?.catch(() => undefined); // the request that started it gets the error
      return false;
    }
    const work = deleteIfExpected(name, expected, signal);
    deleting.set(key, work);
    try {
      return await work;
    } finally {
      deleting.delete(key);
    }
  };
}

function userOf(session: Session | undefined): string {
  return session?.user ?? '';
}

function pinOf({ repository, tag, digest }: { repository: string; tag?: string | undefined; digest?: string | undefined }): Pin {
  const reference = tag ?? digest;
  if (reference === undefined || (tag !== undefined && digest !== undefined))
    throw new ApiFailure('BAD_REQUEST', 'expected either a tag or a digest');
  return { repository: repository as Repository, reference: reference as Pin['reference'] };
}
