import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { debianTool, toolPath } from '../tools/tools.ts';
import { accepts, startProcess, type RunningProcess } from './process.ts';
import { versionOf } from './compatibility.ts';
import { temporaryDirectory } from './temporary.ts';

const run = promisify(execFile);

export interface ContainerdOptions {
  /** The release of Debian (1.6), or the current one (2.4), whose defaults differ. */
  release: 'debian' | '2.4';
  /** The folder of hosts.toml files (`certs.d`); default: none is configured. */
  configPath?: string;
}

export interface Containerd extends AsyncDisposable {
  socket: string;
  /** The version that it reports. */
  version: string;
  process: RunningProcess;
  /** `ctr ARGS` of the same release; returns stdout. @throws Error with stderr */
  ctr(...args: string[]): Promise<string>;
  /** Through the kubelet's own client: `pull [--creds USER:PASSWORD] IMAGE`, `remove IMAGE` or
   *  `list`. @throws Error with stderr */
  cri(command: 'pull' | 'remove' | 'list', ...args: string[]): Promise<string>;
}

/** A separate containerd, with its content, state and socket in a temporary folder. Needs root.
 *  @throws Error: not root, or a Debian package is missing */
export async function startContainerd(options: ContainerdOptions): Promise<Containerd> {
  if (process.getuid?.() !== 0) throw new Error('containerd needs root: run this test as root');
  const temporary = await temporaryDirectory();
  const program = options.release === 'debian' ? await debianTool('containerd') : await toolPath('containerd');
  const ctr = options.release === 'debian' ? await debianTool('ctr') : join(dirname(program), 'ctr');
  const cri = await toolPath('cri');
  const socket = join(temporary.path, 'containerd.sock');
  const file = join(temporary.path, 'containerd.toml');
  await mkdir(join(temporary.path, 'cni'));
  await writeFile(file, configuration(options, temporary.path));
  const child = await startProcess({
    command: program,
    args: ['--config', file],
    env: { ...process.env, PATH: [dirname(program), process.env['PATH']].join(delimiter) }, // where it looks for its shim
    ready: () => accepts(socket),
  });
  const version = await versionOf(program, '--version');
  return {
    socket,
    version,
    process: child,
    ctr: (...args) => output(ctr, ['--address', socket, ...args]),
    cri: (...args) => output(cri, ['--endpoint', `unix://${socket}`, ...args]),
    async [Symbol.asyncDispose]() {
      await child[Symbol.asyncDispose]();
      await temporary[Symbol.asyncDispose]();
    },
  };
}

function configuration({ release, configPath = '' }: ContainerdOptions, directory: string): string {
  const images = release === 'debian' ? 'io.containerd.grpc.v1.cri' : 'io.containerd.cri.v1.images';
  const runtime = release === 'debian' ? 'io.containerd.grpc.v1.cri' : 'io.containerd.cri.v1.runtime';
  return `version = ${release === 'debian' ? 2 : 3}
root = "${directory}/root"
state = "${directory}/state"
[grpc]
  address = "${directory}/containerd.sock"
[ttrpc]
  address = "${directory}/containerd.ttrpc.sock"
[plugins."${images}".registry]
  config_path = "${configPath}"
[plugins."${runtime}"]
  restrict_oom_score_adj = true
[plugins."${runtime}".cni]
  conf_dir = "${directory}/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "${directory}/opt"
`;
}

async function output(file: string, args: string[]): Promise<string> {
  const { stdout } = await run(file, args, { maxBuffer: 64 * 1024 * 1024 });
  return stdout;
}
