import { execFile, type PromiseWithChild } from 'node:child_process';
import { promisify } from 'node:util';
import { MANIFEST_MEDIA_TYPES } from '../src/oci/descriptor.ts';
import { accepts, startProcess, startService } from '../test/support/process.ts';
import { freePort } from '../test/support/temporary.ts';
import { debianTool, toolPath } from '../test/tools/tools.ts';

const run = promisify(execFile);

export interface LoadClient {
  /** URLs to read one after the other. Redirects are followed. */
  urls: readonly string[];
  /** A Range header. */
  range?: string;
  /** Bytes per second; absent: unlimited. */
  rate?: number;
}
export interface LoadPlan {
  /** Concurrent readers, each with connections of its own. */
  clients: readonly LoadClient[];
  /** How long to repeat the reads; absent: once. */
  seconds?: number;
  /** Verify that bodies match the digests at the end of their URLs, at the cost of hashing. */
  verify?: boolean;
  /** A PEM file of a certificate authority to trust. */
  ca?: string | undefined;
  /** The command prefix that runs the readers on another machine (lines.ts). */
  enter?: readonly string[];
}
/** Times in seconds. */
export interface LoadResult {
  seconds: number;
  bytes: number;
  requests: number;
  /** `firstByte` of the first body, counted from before the connection was made. */
  clients: { bytes: number; requests: number; firstByte: number; seconds: number }[];
}

/** Reads with bench/load, in pieces of 256 KiB: with wrk's 8 KiB, reading takes longer than nginx
 *  needs to send.
 *  @throws Error: a status, a length or a digest is wrong, or a connection was cut */
export async function load({ ca, enter = [], ...plan }: LoadPlan): Promise<LoadResult> {
  const env = { ...process.env, ...(ca === undefined ? {} : { SSL_CERT_FILE: ca }) };
  const [command, ...args] = [...enter, await toolPath('load'), 'run'];
  const child: PromiseWithChild<{ stdout: string }> = run(command ?? '', args, { maxBuffer: 64 * 2 ** 20, env });
  child.child.stdin?.end(JSON.stringify(plan));
  return JSON.parse((await child).stdout) as LoadResult;
}

export interface PutPlan {
  seconds: number;
  clients: number;
  /** A percent sign is replaced by a number that is different for each request, in the body too. */
  url: string;
  body: string;
  contentType: string;
  authorization?: string;
}

/** PUTs documents by clients that each send one after the other.
 *  @returns the requests, all of them answered with 201, and the seconds that they took
 *  @throws Error: another status, or a connection that was cut */
export async function put(plan: PutPlan): Promise<Pick<LoadResult, 'requests' | 'seconds'>> {
  const child: PromiseWithChild<{ stdout: string }> = run(await toolPath('load'), ['put']);
  child.child.stdin?.end(JSON.stringify(plan));
  return JSON.parse((await child).stdout) as LoadResult;
}

/** The total bytes per second of `connections` readers of one URL. In the warm-up turn, or with
 *  `verify` in every turn, all bytes are hashed. */
export async function throughput(
  url: string,
  options: { connections: number; seconds: number; turn: number; verify?: boolean },
): Promise<number> {
  const clients = Array.from({ length: options.connections }, () => ({ urls: [url] }));
  const result = await load({ clients, seconds: options.seconds, verify: options.verify === true || options.turn === 0 });
  if (result.bytes === 0) throw new Error(`nothing comes from ${url}`);
  return result.bytes / result.seconds;
}

/** Manifest requests per second, by wrk with one thread.
 *  @throws Error: a response other than 2xx or 3xx, or a cut connection */
export async function requestRate(url: string, { connections, seconds }: { connections: number; seconds: number }): Promise<number> {
  const { stdout } = await run(await debianTool('wrk'), [
    '-t1',
    `-c${connections}`,
    `-d${seconds}s`,
    '-H',
    `Accept: ${MANIFEST_MEDIA_TYPES.join(', ')}`,
    url,
  ]);
  const rate = Number(/^Requests\/sec:\s+([\d.]+)$/m.exec(stdout)?.[1]);
  if (!(rate > 0) || /Non-2xx|Socket errors/.test(stdout)) throw new Error(`wrk on ${url}:\n${stdout}`);
  return rate;
}

/** A relay to `to` (host:port) with limited bandwidth, in bytes per second: of all its connections
 *  together, or of each.
 *  @returns its own host:port */
export async function startShaper(stack: AsyncDisposableStack, to: string, line: { rate: number; each: boolean }): Promise<string> {
  const address = `127.0.0.1:${await freePort()}`;
  const args = ['shape', '-listen', address, '-to', to, '-rate', String(line.rate), ...(line.each ? ['-each'] : [])];
  stack.use(await startProcess({ command: await toolPath('load'), args, ready: () => accepts(address) }));
  return address;
}

export interface LongLine {
  /** Its own host:port. */
  host: string;
  /** Closes all its connections, so that clients have to connect again. */
  cut(): Promise<void>;
}

/** A relay to `to` (host:port) with a round-trip time of `roundTripMs`, including that of the TCP
 *  handshake. */
export async function startLongLine(stack: AsyncDisposableStack, to: string, roundTripMs: number): Promise<LongLine> {
  const host = `127.0.0.1:${await freePort()}`;
  const args = ['delay', '-listen', host, '-to', to, '-round-trip', `${roundTripMs}ms`];
  const service = stack.use(await startService({ command: await toolPath('load'), args, ready: () => accepts(host) }));
  return {
    host,
    async cut() {
      await service.stop('SIGKILL');
      await service.start();
    },
  };
}
