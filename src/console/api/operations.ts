import type { z } from 'zod';
import {
  checkQuerySchema,
  checkSchema,
  chooseNodeSchema,
  deletedSchema,
  deleteTagSchema,
  jobSchema,
  jobsSchema,
  pinSchema,
  policySchema,
  pruneSchema,
  warmSchema,
} from './actions.ts';
import { emptySchema } from './common.ts';
import { downloadsSchema } from './downloads.ts';
import { historyQuerySchema, historySchema } from './history.ts';
import { imageDetailSchema, imageQuerySchema, imagesQuerySchema, imagesSchema } from './images.ts';
import { overviewSchema } from './overview.ts';
import { agentsSchema, clashSchema, replicasSchema, upstreamsSchema, webhookQuerySchema, webhookSchema } from './places.ts';
import { loginSchema, sessionSchema } from './sessions.ts';
import { upkeepSchema } from './upkeep.ts';

export interface Operation {
  method: 'GET' | 'POST' | 'DELETE';
  path: `/api/${string}`;
  summary: string;
  query?: z.ZodObject;
  body?: z.ZodObject;
  response: z.ZodObject;
  /** Whether the operation changes something. It then requires a session, and headers that browsers
   *  send only from the console's own page. */
  acts: boolean;
}

/** Every request with a method other than GET must have this header. For a page of another origin,
 *  a browser sends it only after a preflight request, which is refused. */
export const ACTION_HEADER = 'x-kube-registry-console';

/** All operations of the API. `/api/events` and `/api/openapi.json` are not among them. */
export const OPERATIONS = {
  overview: { method: 'GET', path: '/api/overview', summary: 'An overview of the state', response: overviewSchema, acts: false },
  downloads: { method: 'GET', path: '/api/downloads', summary: 'Running downloads', response: downloadsSchema, acts: false },
  images: { method: 'GET', path: '/api/images', summary: 'Stored images', query: imagesQuerySchema, response: imagesSchema, acts: false },
  image: {
    method: 'GET',
    path: '/api/image',
    summary: 'One stored image',
    query: imageQuerySchema,
    response: imageDetailSchema,
    acts: false,
  },
  upstreams: { method: 'GET', path: '/api/upstreams', summary: 'Upstreams', response: upstreamsSchema, acts: false },
  clash: { method: 'GET', path: '/api/clash', summary: 'The clash proxy', response: clashSchema, acts: false },
  agents: { method: 'GET', path: '/api/agents', summary: 'The agents of the nodes', response: agentsSchema, acts: false },
  webhook: {
    method: 'GET',
    path: '/api/webhook',
    summary: 'The images of pods, rewritten or not',
    query: webhookQuerySchema,
    response: webhookSchema,
    acts: false,
  },
  replicas: { method: 'GET', path: '/api/replicas', summary: 'The replicas of the registry', response: replicasSchema, acts: false },
  history: {
    method: 'GET',
    path: '/api/history',
    summary: 'The last hour or day',
    query: historyQuerySchema,
    response: historySchema,
    acts: false,
  },
  policy: {
    method: 'GET',
    path: '/api/policy',
    summary: 'The rules, and the pulls that they refused',
    response: policySchema,
    acts: false,
  },
  check: {
    method: 'GET',
    path: '/api/check',
    summary: 'Whether an image would be served',
    query: checkQuerySchema,
    response: checkSchema,
    acts: false,
  },
  upkeep: { method: 'GET', path: '/api/upkeep', summary: 'When images are pruned and fetched', response: upkeepSchema, acts: false },
  jobs: { method: 'GET', path: '/api/jobs', summary: 'The recent actions', response: jobsSchema, acts: false },
  session: { method: 'GET', path: '/api/session', summary: 'The logged-in user', response: sessionSchema, acts: false },
  logIn: { method: 'POST', path: '/api/session', summary: 'Log in', body: loginSchema, response: sessionSchema, acts: false },
  logOut: { method: 'DELETE', path: '/api/session', summary: 'Log out', response: sessionSchema, acts: false },
  warm: { method: 'POST', path: '/api/actions/warm', summary: 'Fetch an image', body: warmSchema, response: jobSchema, acts: true },
  pin: {
    method: 'POST',
    path: '/api/actions/pin',
    summary: 'Pin an image, so that pruning keeps it',
    body: pinSchema,
    response: emptySchema,
    acts: true,
  },
  unpin: { method: 'POST', path: '/api/actions/unpin', summary: 'Unpin an image', body: pinSchema, response: emptySchema, acts: true },
  deleteTag: {
    method: 'POST',
    path: '/api/actions/delete-tag',
    summary: 'Delete a tag',
    body: deleteTagSchema,
    response: deletedSchema,
    acts: true,
  },
  prune: {
    method: 'POST',
    path: '/api/actions/prune',
    summary: 'Prune, after a dry run',
    body: pruneSchema,
    response: jobSchema,
    acts: true,
  },
  chooseNode: {
    method: 'POST',
    path: '/api/actions/choose-node',
    summary: 'Select the node of the clash proxy',
    body: chooseNodeSchema,
    response: clashSchema,
    acts: true,
  },
} as const satisfies Record<string, Operation>;

export type OperationName = keyof typeof OPERATIONS;

/** The events of `/api/events`: whole snapshots, at most one of each kind a second. Slow readers
 *  miss snapshots. */
export interface ConsoleEvents {
  downloads: z.output<typeof downloadsSchema>;
  jobs: z.output<typeof jobsSchema>;
}
