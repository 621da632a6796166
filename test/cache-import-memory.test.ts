import assert from 'node:assert/strict';
import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { blobPath, formatLayoutIndex, INDEX_FILE, LAYOUT_FILE, LAYOUT_VERSION } from '../src/layout/image-layout.ts';
import { createTarWriter } from '../src/layout/tar-file.ts';
import { parseDigest } from '../src/oci/digest.ts';
import { makeImage } from './support/image.ts';
import { runMeasured } from './support/measured.ts';
import { PROGRAM } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';

const MiB = 2 ** 20;
/** How much more memory a large import may need than a small one. */
const MORE = 32 * MiB;
const [NODE, ...MAIN] = PROGRAM;

async function writeArchive(path: string, layers: readonly number[]): Promise<void> {
  const { root, platforms } = makeImage({ seed: 'import', architectures: ['amd64'], layers });
  const file = await open(path, 'w');
  const tar = createTarWriter(file);
  const { mediaType, size } = root;
  const index = formatLayoutIndex([{ descriptor: { mediaType, size, digest: parseDigest(root.digest) }, name: 'hub.example/app:1' }], []);
  await tar.addBytes(LAYOUT_FILE, Buffer.from(JSON.stringify({ imageLayoutVersion: LAYOUT_VERSION })));
  await tar.addBytes(INDEX_FILE, index);
  for (const { manifest, config, layers } of platforms) {
    for (const { digest, bytes } of [manifest, config, ...layers]) await tar.addBytes(blobPath(parseDigest(digest)), bytes);
  }
  await tar.end();
  await file.close();
}

test('the memory of an import does not grow with the size of blobs', async (context) => {
  await using folder = await temporaryDirectory();
  const archives = { small: [1000], large: Array<number>(4).fill(64 * MiB) };
  const peaks: Record<string, number> = {};
  for (const [name, layers] of Object.entries(archives)) {
    const [archive, directory, config] = ['tar', 'data', 'yaml'].map((suffix) => join(folder.path, `${name}.${suffix}`)) as [
      string,
      string,
      string,
    ];
    await writeArchive(archive, layers);
    await mkdir(directory);
    const registry = { storage: { filesystem: { directory } }, upstreams: { hub: { url: 'http://127.0.0.1:9', hosts: ['hub.example'] } } };
    await writeFile(config, JSON.stringify({ registry }));
    const { code, stderr, peak } = await runMeasured(NODE, [...MAIN, 'cache', 'import', archive, '--config', config]);
    assert.equal(code, 0, stderr);
    context.diagnostic(`${name}: ${Math.round(peak / MiB)} MiB`);
    peaks[name] = peak;
  }
  const { small = 0, large = Infinity } = peaks;
  assert.ok(large < small + MORE);
});
