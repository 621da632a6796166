import { isIP } from 'node:net';
import { isDigest, type Digest } from '../oci/digest.ts';

// The headers by which an agent and the registry agree on the source of a blob. Agents and
// registries that do not know the headers ignore them: such a registry sends the blob itself, and
// such an agent is never redirected.

/** Sent by an agent with a request for a blob: the other sources that it can read the blob from. */
export const AGENT_HEADER = 'x-kube-registry-agent';
/** Sent by the registry with its response: the source that it has chosen. */
export const PLACE_HEADER = 'x-kube-registry-place';
/** Sent by an agent with GET /v2/: the result of a download. */
export const REPORT_HEADER = 'x-kube-registry-report';

/** An agent that shares its blobs with other nodes. */
export interface SharingNode {
  /** `IP:port` at which other nodes reach it. */
  address: string;
  /** The key of the tickets for its blobs, in base64url. The agent creates it when it starts. */
  key: string;
  /** The topology zone of the node; empty: unknown. */
  zone: string;
  /** How long it keeps a blob, in seconds. */
  keep: number;
}

/** How a source has failed for an agent. `unreachable`: no answer in time. `cut`: the body ended
 *  early. */
export type PlaceFailure = 'unreachable' | 'cut';

export interface AgentOffer {
  /** Undefined: the agent does not share, and is not sent to other nodes. */
  node: SharingNode | undefined;
  /** Whether it may be redirected to S3. */
  s3: boolean;
  /** Nodes that it recently could not reach. */
  away: readonly string[];
  /** The node that has just failed to serve this blob to it. */
  failed: { address: string; how: PlaceFailure } | undefined;
}

/** The result of an agent's download. `whole`: it has the blob, and can share it. `wrong`: all
 *  bytes came from one node, and do not match the digest. `failed`: the blob is incomplete. `gone`:
 *  it no longer has the blob. */
export type Outcome = 'whole' | 'wrong' | 'failed' | 'gone';
const OUTCOMES: readonly string[] = ['whole', 'wrong', 'failed', 'gone'] satisfies Outcome[];

export interface Report {
  node: SharingNode;
  digest: Digest;
  outcome: Outcome;
  /** The node that the bytes came from; undefined: the registry or S3. */
  from: string | undefined;
  /** How long the download took, in ms. */
  milliseconds: number;
}

export type PlaceKind = 'registry' | 's3' | 'node';
/** The source that the registry has chosen for one request. */
export interface Place {
  kind: PlaceKind;
  /** 1 for a node that reads from the registry or S3, 2 for a node that reads from such a node, and
   *  so on. */
  depth: number;
  /** The size of the blob, in bytes. */
  size: number;
}

/** At most this many nodes in one header. */
const MAX_AWAY = 32;
const MAX_HEADER_CHARACTERS = 4096;
const KEY = /^[\w-]{32,86}$/;
const MAX_KEEP_SECONDS = 86_400;

export function formatOffer({ node, s3, away, failed }: AgentOffer): string {
  const fields = new URLSearchParams(node === undefined ? {} : nodeFields(node));
  if (s3) fields.set('s3', '1');
  if (away.length > 0) fields.set('away', away.slice(-MAX_AWAY).join(' '));
  if (failed !== undefined) fields.set('failed', `${failed.address} ${failed.how}`);
  return fields.toString();
}

/** Undefined: the request does not come from an agent, or its header is malformed. */
export function parseOffer(header: string | string[] | undefined): AgentOffer | undefined {
  const fields = fieldsOf(header);
  if (fields === undefined) return undefined;
  const [address = '', how] = (fields.get('failed') ?? '').split(' ');
  return {
    node: parseNode(fields),
    s3: fields.get('s3') === '1',
    away: (fields.get('away') ?? '').split(' ').filter(isNodeAddress).slice(-MAX_AWAY),
    failed: isNodeAddress(address) ? { address, how: how === 'cut' ? 'cut' : 'unreachable' } : undefined,
  };
}

export function formatReport({ node, digest, outcome, from, milliseconds }: Report): string {
  const fields = new URLSearchParams({ ...nodeFields(node), digest, outcome, ms: String(Math.round(milliseconds)) });
  if (from !== undefined) fields.set('from', from);
  return fields.toString();
}

export function parseReport(header: string | string[] | undefined): Report | undefined {
  const fields = fieldsOf(header);
  const node = fields === undefined ? undefined : parseNode(fields);
  const digest = fields?.get('digest') ?? '';
  const outcome = fields?.get('outcome') ?? '';
  if (fields === undefined || node === undefined || !isDigest(digest) || !OUTCOMES.includes(outcome)) return undefined;
  const from = fields.get('from') ?? '';
  return {
    node,
    digest,
    outcome: outcome as Outcome,
    from: isNodeAddress(from) ? from : undefined,
    milliseconds: Math.max(1, Number(fields.get('ms')) || 1),
  };
}

export function formatPlace({ kind, depth, size }: Place): string {
  return new URLSearchParams({ kind, depth: String(depth), size: String(size) }).toString();
}

export function parsePlace(header: string | string[] | undefined): Place | undefined {
  const fields = fieldsOf(header);
  const kind = fields?.get('kind') ?? '';
  const size = Number(fields?.get('size'));
  if (fields === undefined || !isPlaceKind(kind) || !Number.isSafeInteger(size) || size <= 0) return undefined;
  return { kind, size, depth: Number(fields.get('depth')) || 1 };
}

/** True for `IP:port`: never a name, which other machines might resolve differently. */
export function isNodeAddress(text: string): boolean {
  const match = /^(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15})):(\d{1,5})$/.exec(text);
  if (match === null) return false;
  const [, six = '', four = '', port] = match;
  return (isIP(six) === 6 || isIP(four) === 4) && Number(port) > 0 && Number(port) < 65_536;
}

function nodeFields({ address, key, zone, keep }: SharingNode): Record<string, string> {
  return { node: address, key, zone, keep: String(Math.round(keep)) };
}

function parseNode(fields: URLSearchParams): SharingNode | undefined {
  const address = fields.get('node') ?? '';
  const key = fields.get('key') ?? '';
  if (!isNodeAddress(address) || !KEY.test(key)) return undefined;
  const keep = Math.min(MAX_KEEP_SECONDS, Number(fields.get('keep')) || 0);
  return { address, key, zone: (fields.get('zone') ?? '').slice(0, 63), keep };
}

function fieldsOf(header: string | string[] | undefined): URLSearchParams | undefined {
  if (typeof header !== 'string' || header.length > MAX_HEADER_CHARACTERS) return undefined;
  return new URLSearchParams(header);
}

function isPlaceKind(text: string): text is PlaceKind {
  return text === 'registry' || text === 's3' || text === 'node';
}
