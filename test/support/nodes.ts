import { join } from 'node:path';
import { sha256 } from './image.ts';
import { startAgent, type ServingProgram } from './program.ts';
import { freePort, temporaryDirectory } from './temporary.ts';

/** An agent that shares blobs, as if on its own node. */
export interface SharingNode extends ServingProgram {
  /** `127.0.0.N:PORT`, as other nodes reach it. */
  shares: string;
}

export interface NodesOptions {
  /** URL of the registry. */
  registry: string;
  /** The registry's configuration, as far as agents know it. */
  knows: Record<string, unknown>;
  count: number;
  /** Laid over `agent`. */
  agent?: Record<string, unknown>;
  /** Laid over `agent.share`. */
  share?: Record<string, unknown>;
}

export interface Nodes extends AsyncDisposable {
  all: SharingNode[];
}

let addresses = 1;

/** Agents, each on its own loopback address. */
export async function startNodes({ registry, knows, count, agent = {}, share = {} }: NodesOptions): Promise<Nodes> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  async function start(): Promise<SharingNode> {
    const number = ++addresses;
    const shares = `127.0.${Math.floor(number / 250)}.${(number % 250) + 1}:${await freePort()}`;
    const own = { registry, ...agent, share: { enabled: true, listen: shares, directory: join(path, shares), ...share } };
    const program = stack.use(await startAgent(own, { registry: knows }));
    return { ...program, shares };
  }
  const all: SharingNode[] = [];
  for (let index = 0; index < count; index++) all.push(await start());
  const owned = stack.move();
  return { all, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Reads a blob as a client does.
 *  @returns its digest and how long it took, in ms: until the first byte, and the last */
export async function readBlob(url: string, signal?: AbortSignal): Promise<{ digest: string; first: number; last: number }> {
  const started = performance.now();
  const response = await fetch(url, signal === undefined ? {} : { signal });
  if (!response.ok || response.body === null) throw new Error(`${url}: ${response.status} ${await response.text()}`);
  const chunks: Uint8Array[] = [];
  let first: number | undefined;
  for await (const chunk of response.body) {
    first ??= performance.now() - started;
    chunks.push(chunk);
  }
  return { digest: sha256(Buffer.concat(chunks)), first: first ?? 0, last: performance.now() - started };
}
