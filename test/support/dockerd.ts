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
  /** @returns the id of the image, which is a digest */
  id(image: string): Promise<string>;
  remove(image: string): Promise<void>;
  /** As `docker login` does. */
  login(host: string, user: User): Promise<void>;
  pull(image: string, user?: User): Promise<void>;
  /** @returns what the engine says of each layer */
  push(image: string, user?: User): Promise<string>;
}

interface User {
  username: string;
  password: string;
}

/** Where an engine keeps its images: in containerd, or in the image store that Docker had before
 *  (graph drivers). */
export type ImageStore = 'containerd' | 'graph driver';

const STORES: Record<ImageStore, Record<string, unknown>> = {
  containerd: { features: { 'containerd-snapshotter': true }, 'storage-driver': 'native' },
  'graph driver': { features: { 'containerd-snapshotter': false }, 'storage-driver': 'vfs' },
};

/** Docker's engine, with its images, state and socket in a temporary folder. It starts no
 *  containers, and leaves the network alone. Needs root. */
export async function startDockerd(store: ImageStore): Promise<Docker> {
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
    ...STORES[store],
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
    async id(image) {
      const { Id } = JSON.parse(await ask(`/images/${image}/json`, {}, { method: 'GET' })) as { Id: string };
      return Id;
    },
    remove: async (image) => void (await ask(`/images/${image}`, {}, { method: 'DELETE' })),
    async login(host, user) {
      const body = Buffer.from(JSON.stringify({ ...user, serveraddress: host }));
      await ask('/auth', {}, { body, headers: { 'Content-Type': 'application/json' } });
    },
    pull: async (image, user) => void (await ask('/images/create', { fromImage: image }, { headers: authorizing(user) })),
    async push(image, user) {
      const { repo, tag } = named(image);
      const lines = (await ask(`/images/${repo}/push`, { tag }, { headers: authorizing(user) })).split('\n').filter((line) => line !== '');
      return lines.map((line) => (JSON.parse(line) as { status?: string }).status ?? '').join('\n');
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

/** In base64, padded. */
function authorizing(user: Partial<User> = {}): Record<string, string> {
  const auth = Buffer.from(JSON.stringify(user)).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
  return { 'X-Registry-Auth': auth };
}

interface Question {
  /** With its query. */
  path: string;
  /** POST by default. */
  method?: string;
  headers?: Record<string, string>;
  body?: Buffer;
}

/** Asks Docker's API. @returns its answer: JSON, some answers a document a line */
async function askEngine(socketPath: string, { path, method = 'POST', headers = {}, body }: Question): Promise<string> {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ socketPath, path, method, headers }, resolve).on('error', reject).end(body);
  });
  const content = await text(answer);
  for (const line of content.split('\n')) {
    if (!/^\{"(?:error|message)/.test(line)) continue;
    const { error, message } = JSON.parse(line) as { error?: string; message?: string };
    throw new Error(error ?? message);
  }
  return content;
}
