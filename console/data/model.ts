// The types of the API, derived from its schemas. Only types are imported: zod would be larger than
// the page.

export type { Check, Deleted, Job, Jobs, PolicyReport } from '../../src/console/api/actions.ts';
export type { Downloads, RunningDownload } from '../../src/console/api/downloads.ts';
export type { History } from '../../src/console/api/history.ts';
export type { ImageDetail, ImageRow, Images } from '../../src/console/api/images.ts';
export type { Overview, RateLimitReport } from '../../src/console/api/overview.ts';
export type { AgentsReport, ClashReport, Replicas, UpstreamReport, Upstreams, WebhookReport } from '../../src/console/api/places.ts';
export type { Upkeep } from '../../src/console/api/upkeep.ts';
export type { Session } from '../../src/console/api/sessions.ts';
export type { ConsoleEvents } from '../../src/console/api/operations.ts';
