import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { OCI_MANIFEST, BLOB_MEDIA_TYPE } from '../src/oci/descriptor.ts';
import { digestOf, type Digest } from '../src/oci/digest.ts';
import { parseRepository, parseTag } from '../src/oci/reference.ts';
import { blobKey, memberKey, tagKey, usedKey } from '../src/store/keys.ts';
import { runMeasured } from './support/measured.ts';
import { PROGRAM } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startVersitygw } from './support/versitygw.ts';

// npm run cache-scale [-- IMAGES]: how long `cache stat` and `cache prune` take over a store of ten
// blobs an image, and how much memory. Default: 10,000 images, 100,000 blobs.

const [NODE, ...MAIN] = PROGRAM;
const IMAGES = Number(process.argv[2] ?? 10_000);
const LAYERS = 8;
const DAY = 86_400_000;

/** Writes files under their keys, many at once; nothing is synced. */
function createWriter(root: string) {
  const made = new Set<string>();
  const running = new Set<Promise<void>>();
  async function put(key: string, content: string): Promise<void> {
    const file = join(root, key);
    const parent = join(file, '..');
    if (!made.has(parent)) await mkdir(parent, { recursive: true });
    made.add(parent);
    await writeFile(file, content);
  }
  return {
    async write(key: string, content: string): Promise<void> {
      const task = put(key, content).finally(() => running.delete(task));
      running.add(task);
      if (running.size >= 32) await Promise.race(running);
    },
    end: () => Promise.all(running),
  };
}

/** A hundred repositories of equally many images; each has a layer in common with its neighbour.
 *  @returns bytes of all blobs */
async function fill(root: string): Promise<number> {
  const writer = createWriter(root);
  let bytes = 0;
  for (let image = 0; image < IMAGES; image++) {
    const repository = parseRepository(`hub/team${image % 100}/app`);
    const keep = async (content: string, mediaType: string): Promise<{ mediaType: string; digest: Digest; size: number }> => {
      bytes += content.length;
      const descriptor = { mediaType, digest: digestOf(Buffer.from(content)), size: content.length };
      await writer.write(blobKey(descriptor.digest), content);
      await writer.write(memberKey(repository, descriptor.digest), JSON.stringify({ mediaType, size: content.length }));
      return descriptor;
    };
    const config = await keep(`config ${image}`, BLOB_MEDIA_TYPE);
    const layers = [];
    for (let layer = 0; layer < LAYERS; layer++) layers.push(await keep(`layer ${layer} of ${image}`, BLOB_MEDIA_TYPE));
    const shared = digestOf(Buffer.from(`layer 0 of ${Math.max(0, image - 1)}`));
    const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [...layers, { digest: shared, size: 1 }] };
    const { digest } = await keep(JSON.stringify(manifest), OCI_MANIFEST);
    await writer.write(tagKey(repository, parseTag(`v${image}`)), JSON.stringify({ digest, checkedAt: new Date().toISOString() }));
    const ago = createHash('sha256').update(`${image}`).digest().readUInt16BE() % 60;
    await writer.write(usedKey(new Date(Date.now() - ago * DAY), repository, digest), '');
  }
  await writer.end();
  return bytes;
}

/** Runs a cache command. @returns seconds, peak memory in MiB, and its last output */
async function measure(config: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr, seconds, peak } = await runMeasured(NODE, [...MAIN, 'cache', ...args, '--config', config]);
  process.stderr.write(stderr);
  const last = stdout.trimEnd().split('\n').at(-1) ?? '';
  return `${seconds.toFixed(1)} s, ${Math.round(peak / 2 ** 20)} MiB at most, exit ${code}: ${last}`;
}

async function report(
  kind: string,
  storage: Record<string, unknown>,
  { directory, bytes }: { directory: string; bytes: number },
): Promise<void> {
  const config = join(directory, `${kind}.yaml`);
  await writeFile(config, JSON.stringify({ registry: { storage, upstreams: { hub: { url: 'http://127.0.0.1:9' } } } }));
  process.stdout.write(`${kind}, ${IMAGES} images, ${IMAGES * (LAYERS + 2)} blobs\n`);
  const half = ['--max-size', String(Math.floor(bytes / 2)), '--min-age', '0'];
  for (const args of [['stat'], ['ls'], ['prune', '--dry-run', ...half], ['prune', ...half], ['prune', ...half]]) {
    process.stdout.write(`  cache ${args.join(' ')}: ${await measure(config, args)}\n`);
  }
}

await using temporary = await temporaryDirectory();
const data = join(temporary.path, 'data');
const bytes = await fill(data);
await report('filesystem', { filesystem: { directory: data } }, { directory: temporary.path, bytes });
await using s3 = await startVersitygw();
await fill(s3.directory);
const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
await report('s3', { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } }, { directory: temporary.path, bytes });
