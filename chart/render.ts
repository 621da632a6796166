import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { parse, parseAllDocuments } from 'yaml';
import { toolPath } from '../test/tools/tools.ts';

const run = promisify(execFile);

/** A Kubernetes object, as rendered by a template. */
export interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  [key: string]: unknown;
}

export interface RenderOptions {
  values?: unknown;
  /** The cluster's version; default 1.34.0. */
  kubeVersion?: string;
  release?: string;
  namespace?: string;
}

/** The output of `helm template` for these values. @throws Error with helm's message */
export async function render(options: RenderOptions = {}): Promise<Manifest[]> {
  const output = await helm(options, 'template');
  return parseAllDocuments(output).flatMap((document) => {
    if (document.errors[0] !== undefined) throw document.errors[0];
    const manifest = document.toJSON() as Manifest | null;
    return manifest === null ? [] : [manifest];
  });
}

/** The notes that `helm install` would print for these values. Helm assumes a cluster of the latest
 *  version that it knows. */
export async function notes(options: RenderOptions = {}): Promise<string> {
  const output = await helm(options, 'install', '--dry-run=client');
  return output.slice(output.indexOf('NOTES:'));
}

/** The reason why helm refuses these values. @throws Error: helm accepts them */
export async function refusal(values: unknown, kubeVersion?: string): Promise<string> {
  try {
    await helm({ values, ...(kubeVersion === undefined ? {} : { kubeVersion }) }, 'template');
  } catch (error) {
    return (error as { stderr: string }).stderr;
  }
  throw new Error('helm took these values');
}

async function helm({ values = {}, kubeVersion = '1.34.0', release = 'test', namespace = 'images' }: RenderOptions, ...args: string[]) {
  const settings = ['--namespace', namespace, '--values', '-', ...(args[0] === 'template' ? ['--kube-version', kubeVersion] : [])];
  const child = run(await toolPath('helm'), [...args, release, import.meta.dirname, ...settings], { maxBuffer: 64 * 1024 * 1024 });
  child.child.stdin?.end(JSON.stringify(values));
  return (await child).stdout;
}

/** The only object of a kind whose name has this ending. @throws Error: there is none, or
 *  several */
export function find(manifests: readonly Manifest[], kind: string, suffix = ''): Manifest {
  const found = manifests.filter((manifest) => manifest.kind === kind && manifest.metadata.name.endsWith(suffix));
  const [only] = found;
  if (only === undefined || found.length > 1) {
    throw new Error(`${found.length} of ${kind} …${suffix}: ${found.map(({ metadata }) => metadata.name).join(', ')}`);
  }
  return only;
}

/** The value at `a.b.0.c`; undefined if the path does not exist. */
export function at(value: unknown, path: string): unknown {
  let current = value;
  for (const key of path.split('.')) current = (current as Record<string, unknown> | null | undefined)?.[key];
  return current;
}

/** The pod template of a workload. */
export interface Pod {
  containers: Container[];
  initContainers?: Container[];
  volumes: { name: string; [source: string]: unknown }[];
  [key: string]: unknown;
}
export interface Container {
  name: string;
  image: string;
  args?: string[];
  env?: { name: string; value?: string }[];
  volumeMounts?: { name: string; mountPath: string }[];
  [key: string]: unknown;
}

export function podOf(manifest: Manifest): Pod {
  return (manifest.kind === 'Pod' ? manifest['spec'] : at(manifest, 'spec.template.spec')) as Pod;
}

/** All workloads. */
export function workloads(manifests: readonly Manifest[]): Manifest[] {
  return manifests.filter(({ kind }) => ['Deployment', 'DaemonSet', 'Pod', 'StatefulSet', 'Job'].includes(kind));
}

/** A component's configuration, from its ConfigMap or Secret. */
export function configOf(manifests: readonly Manifest[], component: string, key = 'config.yaml'): Record<string, unknown> {
  const holder = manifests.find(
    ({ kind, metadata, data }) =>
      ['ConfigMap', 'Secret'].includes(kind) && metadata.name.endsWith(`-${component}`) && key in (data as object),
  );
  if (holder === undefined) throw new Error(`no configuration of ${component}`);
  const content = (holder['data'] as Record<string, string>)[key] ?? '';
  return parse(holder.kind === 'Secret' ? Buffer.from(content, 'base64').toString() : content) as Record<string, unknown>;
}
