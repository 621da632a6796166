import { toolPath } from '../tools/tools.ts';
import { startProcess } from './process.ts';
import { temporaryDirectory } from './temporary.ts';

export interface ConformanceData {
  /** host:port, plain HTTP. */
  host: string;
  repository: string;
  tags: readonly string[];
  /** Digests. */
  manifests: readonly string[];
  blobs: readonly string[];
  /** A digest that others refer to. */
  subject: string;
}
export interface ConformanceCounts {
  pass: number;
  fail: number;
  error: number;
  skip: number;
  report: string;
}

/** Runs the distribution specification's conformance program over content that is there already. */
export async function runConformance(data: ConformanceData): Promise<ConformanceCounts> {
  await using folder = await temporaryDirectory();
  const program = await startProcess({
    command: await toolPath('conformance'),
    cwd: folder.path,
    env: {
      OCI_REGISTRY: data.host,
      OCI_TLS: 'disabled',
      OCI_REPO1: data.repository,
      OCI_RESULTS_DIR: folder.path,
      OCI_API_PUSH: 'false',
      OCI_API_BLOBS_DELETE: 'false',
      OCI_API_MANIFESTS_DELETE: 'false',
      OCI_API_TAGS_DELETE: 'false',
      OCI_RO_DATA_TAGS: data.tags.join(' '),
      OCI_RO_DATA_MANIFESTS: data.manifests.join(' '),
      OCI_RO_DATA_BLOBS: data.blobs.join(' '),
      OCI_RO_DATA_REFERRERS: data.subject,
    },
  });
  await program.exited;
  // Its exit code is useless: without data that it has pushed itself, it panics when it writes its
  // results file.
  return countResults(program.output());
}

export interface PushConformance {
  /** host:port, plain HTTP. */
  host: string;
  /** Two repositories that `username` may push to, and everybody may pull from. */
  repositories: readonly [string, string];
  username: string;
  password: string;
  version: '1.1' | 'dev';
}

/** Runs every check of the conformance program, pushing its own content, with all options on. */
export async function runPushConformance(options: PushConformance): Promise<ConformanceCounts> {
  await using folder = await temporaryDirectory();
  const program = await startProcess({
    command: await toolPath('conformance'),
    cwd: folder.path,
    env: {
      OCI_VERSION: options.version,
      OCI_REGISTRY: options.host,
      OCI_TLS: 'disabled',
      OCI_REPO1: options.repositories[0],
      OCI_REPO2: options.repositories[1],
      OCI_USERNAME: options.username,
      OCI_PASSWORD: options.password,
      OCI_RESULTS_DIR: folder.path,
      OCI_API_BLOBS_UPLOAD_CANCEL: 'true',
      OCI_API_BLOBS_DIGEST_HEADER: 'true',
      OCI_API_MANIFESTS_DIGEST_HEADER: 'true',
    },
  });
  await program.exited;
  return countResults(program.output());
}

function countResults(report: string): ConformanceCounts {
  const count = (result: string) => Number(new RegExp(`^  ${result}\\.+: +(\\d+)$`, 'm').exec(report)?.[1]);
  return { pass: count('Pass'), fail: count('FAIL'), error: count('Error'), skip: count('Skip'), report };
}
