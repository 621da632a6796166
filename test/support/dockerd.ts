import { request, type IncomingMessage } from 'node:http';
import { mkdir, writeFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { debianTool, toolPath } from '../tools/tools.ts';
import { accepts, startProcess } from './process.ts';
import { temporaryDirectory } from './temporary.ts';

export interface Docker extends AsyncDisposable {
  /** Makes an image of one layer, a tar archive. @throws Error: the engine's error, as all do */
  import(image: string, layer: Buffer): Promise<void>;
  /** Gives an image a second name. */
  tag(image: string, other: string): Promise<void>;
  pull(image: string): Promise<void>;
  /** @returns what the engine says of each layer */
  push(image: string, user: { username: string; password: string }): Promise<string>;
}

/** Docker's engine, with its images (in containerd), state and socket in a temporary folder. It
 *  starts no containers, and leaves the network alone. Needs root. */
export async function startDockerd(): Promise<Docker> {
  if (process.getuid?.() !== 0) throw new Error('dockerd needs root: run this test as root');
  const temporary = await temporaryDirectory();
  const [program, containerd, runc] = [await toolPath('dockerd'), await toolPath('containerd'), await debianTool('runc')];
  const file = join(temporary.path, 'daemon.json');
  const socket = join(temporary.path, 'docker.sock');
  const configuration = {
    'data-root': join(temporary.path, 'data'),
    'exec-root': join(temporary.path, 'exec'),
    pidfile: join(temporary.path, 'pid'),
    bridge: 'none',
    iptables: false,
    ip6tables: false,
    'userland-proxy': false,
    features: { 'containerd-snapshotter': true },
    'storage-driver': 'native',
  };
  await mkdir(join(temporary.path, 'home'));
  await writeFile(file, JSON.stringify(configuration));
  const child = await startProcess({
    command: program,
    args: ['--config-file', file, '--host', `unix://${socket}`],
    env: {
      ...process.env,
      HOME: join(temporary.path, 'home'),
      PATH: [dirname(containerd), dirname(runc), process.env['PATH']].join(delimiter),
    },
    ready: () => accepts(socket),
  });

  const ask = (path: string, query: Record<string, string>, more: Omit<Question, 'path'> = {}): Promise<string> =>
    askEngine(socket, { path: `${path}?${new URLSearchParams(query).toString()}`, ...more });
  return {
    import: async (image, layer) => void (await ask('/images/create', { fromSrc: '-', ...named(image) }, { body: layer })),
    tag: async (image, other) => void (await ask(`/images/${image}/tag`, named(other))),
    pull: async (image) => void (await ask('/images/create', { fromImage: image })),
    push(image, user) {
      const { repo, tag } = named(image);
      const auth = Buffer.from(JSON.stringify(user)).toString('base64').replaceAll('+', '-').replaceAll('/', '_'); // padded
      return ask(`/images/${repo}/push`, { tag }, { headers: { 'X-Registry-Auth': auth } });
    },
    async [Symbol.asyncDispose]() {
      await child.stop();
      await temporary[Symbol.asyncDispose]();
    },
  };
}

function named(image: string): { repo: string; tag: string } {
  const at = image.lastIndexOf(':');
  return { repo: image.slice(0, at), tag: image.slice(at + 1) };
}

interface Question {
  /** With its query. */
  path: string;
  headers?: Record<string, string>;
  body?: Buffer;
}

/** A POST to Docker's API. The answer is a JSON document a line. */
async function askEngine(socketPath: string, { path, headers = {}, body }: Question): Promise<string> {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ socketPath, path, method: 'POST', headers }, resolve).on('error', reject).end(body);
  });
  const lines = (await text(answer)).split('\n').filter((line) => line.trim() !== '');
  const documents = lines.map((line) => JSON.parse(line) as { status?: string; error?: string; message?: string });
  const failure = documents.map(({ error, message }) => error ?? message).find((message) => message !== undefined);
  if (failure !== undefined) throw new Error(failure);
  return documents.map(({ status = '' }) => status).join('\n');
}
